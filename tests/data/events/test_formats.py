import pytest

from shortback.data.events.formats import read_events
from shortback.errors import UserError
from tests.data.events import test_aedat2, test_aedat3
from tests.data.events.conftest import write_npz


def test_an_aedat_file_says_its_version(tmp_path):
    path = test_aedat2.file_of(tmp_path, 0x0000205E, 1)
    assert len(read_events(path)) == 1
    path.write_bytes(test_aedat3.LINES + test_aedat3.packet([(1, 1, 3, 5, 10), (1, 1, 3, 5, 10)]))
    assert len(read_events(path)) == 2
    path.write_bytes(test_aedat3.LINES.replace(b"3.1", b"3.0"))
    with pytest.raises(UserError, match=r"is AEDAT 3\.0, whose rows are counted from the bottom"):
        read_events(path)
    path.write_bytes(b"#!AER-DAT1.0\r\n")
    with pytest.raises(UserError, match=r"is not an AEDAT 2\.0, 3\.1 or 4 file"):
        read_events(path)


def test_endings(tmp_path):
    assert len(read_events(write_npz(tmp_path / "a.npz", seed=0).rename(tmp_path / "b.NPZ"))) == 40
    with pytest.raises(UserError, match=r"a\.aedt: event files end with \.aedat, .*; the nearest are \.aedat"):
        read_events(tmp_path / "a.aedt")
