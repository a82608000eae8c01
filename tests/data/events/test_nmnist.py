import zipfile

import pytest

from shortback.data.events.nmnist import read_nmnist
from shortback.errors import UserError
from tests.data.events.conftest import SHARED


def file_of(tmp_path, *events, rest=b""):
    path = tmp_path / "a.bin"
    content = b"".join(bytes([x, y, on << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, on, t in events)
    path.write_bytes(content + rest)
    return path


def test_events_by_hand(tmp_path):
    found = read_nmnist(file_of(tmp_path, (1, 2, 1, 70000), (33, 0, 0, 70001)))
    assert (found.x.tolist(), found.y.tolist(), found.on.tolist()) == ([1, 33], [2, 0], [True, False])
    assert found.t.tolist() == [70000, 70001]


def test_row_240_begins_the_clock_anew(tmp_path):
    found = read_nmnist(file_of(tmp_path, (1, 2, 1, 8000), (0, 240, 0, 0), (1, 2, 1, 8), (0, 240, 0, 0), (3, 4, 0, 1)))
    assert found.t.tolist() == [8000, 8200, 16385]


@pytest.mark.skipif(not (SHARED / "nmnist-small.zip").is_file(), reason="no recordings at hand")
def test_a_real_recording(tmp_path):
    with zipfile.ZipFile(SHARED / "nmnist-small.zip") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/60004.bin")]
        path = tmp_path / "60004.bin"
        path.write_bytes(archive.read(name))
    found = read_nmnist(path)
    first = list(zip(found.x, found.y, found.on, found.t, strict=True))[:2]
    assert first == [(18, 11, False, 581), (21, 13, False, 1703)]
    assert found.x.max() < 34


@pytest.mark.parametrize(
    ("events", "rest", "message"),
    [
        ([(1, 2, 1, 5)], b"\0\0", "cut off after 1 whole event and"),
        ([], b"", "there is no event"),
        ([(34, 0, 0, 5)], b"", "outside the sensor of 34 x 34"),
    ],
)
def test_damaged_files_are_named(tmp_path, events, rest, message):
    with pytest.raises(UserError, match=rf"a\.bin.*{message}"):
        read_nmnist(file_of(tmp_path, *events, rest=rest))
