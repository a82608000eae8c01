import os
import subprocess
import sys

import pytest

from shortback.errors import UserError
from shortback.files import check_folder, is_temporary, read_json, replacing, write_text


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half of tw\ud800")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_the_one_before_is_kept(tmp_path):
    path, before = tmp_path / "a", tmp_path / "b"
    for text in ("one", "two", "three"):
        with replacing(path, keep_as=before) as temporary:
            temporary.write_text(text)
    assert (path.read_text(), before.read_text()) == ("three", "two")


@pytest.mark.parametrize("inside", ["file/folder", "file", "y" * 300])
def test_a_folder_that_cannot_be_written_is_named_at_once(tmp_path, inside):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^--out .*cannot be written to \("):
        check_folder(tmp_path / inside, what="--out")
    check_folder(tmp_path / "a" / "b", what="--out")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_what_one_that_was_killed_leaves_is_known_by_its_name(tmp_path):
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.touch()
        assert is_temporary(temporary)
    assert not any(map(is_temporary, (tmp_path / "a.txt", tmp_path / ".a.tmp", tmp_path / "a.1.tmp")))


def test_text_is_in_utf_8_whatever_the_locale(tmp_path):
    code = "from pathlib import Path; from shortback.files import write_text; write_text(Path('a'), '\\xfc')"
    ascii_alone = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-X", "utf8=0", "-c", code], check=True, env=ascii_alone, cwd=tmp_path)
    assert (tmp_path / "a").read_bytes() == "ü".encode()


def test_damaged_json_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path, instead="delete it") == {"a": 1}
    for damaged, why in (
        (b'{"a"', "Expecting"),
        (b"", "Expecting value"),
        (b"\xff", "utf-8"),
        (b"[]", "not a JSON object"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"a\.json is damaged \(.*{why}.*\): delete it"):
            read_json(path, instead="delete it")
