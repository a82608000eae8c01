import hashlib
import io
import tarfile
import zipfile

import pytest

from shortback.data.events.archives import unpacked
from shortback.errors import UserError


def zip_of(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_it_is_unpacked_once_and_the_one_folder_in_it_is_left_out(tmp_path):
    archive = zip_of(tmp_path / "cat.zip", ["cat/a.txt", "cat/b.txt"])
    folder = unpacked(archive, tmp_path / "cat", md5=hashlib.md5(archive.read_bytes()).hexdigest())
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]
    archive.unlink()
    assert unpacked(archive, tmp_path / "cat") == folder
    flat = unpacked(zip_of(tmp_path / "flat.zip", ["a.txt", "b.txt"]), tmp_path / "flat")
    assert (flat / "a.txt").read_text() == "a.txt"


def test_tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("inner/a.txt")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"hi"))
    assert (unpacked(tmp_path / "a.tar.gz", tmp_path / "out") / "a.txt").read_text() == "hi"


def test_another_file_or_a_damaged_one_is_named_and_leaves_nothing(tmp_path):
    archive = zip_of(tmp_path / "cat.zip", ["cat/a.txt"])
    with pytest.raises(UserError, match=r"cat\.zip is damaged, or another file: its MD5"):
        unpacked(archive, tmp_path / "cat", md5="0" * 32)
    archive.write_bytes(archive.read_bytes()[:30])
    with pytest.raises(UserError, match=r"cat\.zip cannot be unpacked"):
        unpacked(archive, tmp_path / "cat")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == ["cat.zip"]
