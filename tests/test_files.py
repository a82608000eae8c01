import pytest

from shortback.files import check_folder, is_temporary, replacing, write_text


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
