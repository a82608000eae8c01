import numpy as np
import pytest

from shortback.data.events.evt3 import read_evt3
from shortback.data.events.formats import read_events
from shortback.errors import UserError

pytest.importorskip("evt3")

HEADER = b"% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n"


def words(*numbers):
    """Words of 16 bits by the format's description: the upper four say what the others are."""
    return np.array(numbers, dtype="<u2").tobytes()


def test_events_of_a_file_made_by_hand(tmp_path):
    path = tmp_path / "a.raw"
    # Times of 1 * 2^12 + 16 microseconds, row 5, column 7 ON and column 8 OFF.
    path.write_bytes(HEADER + words(0x8001, 0x6010, 0x0005, 0x2807, 0x2008))
    events = read_evt3(path)
    assert (events.t.tolist(), events.x.tolist(), events.y.tolist()) == ([4112, 4112], [7, 8], [5, 5])
    assert events.on.tolist() == [True, False]
    assert (events.height, events.width) == (720, 1280)
    assert len(read_events(path)) == 2


def test_a_size_that_the_header_says_is_that_of_the_setting_or_refused(tmp_path):
    path, events = tmp_path / "a.raw", words(0x8001, 0x6010, 0x0005, 0x2807, 0x2008)
    path.write_bytes(HEADER + events)
    with pytest.raises(UserError, match=r"a\.raw: its sensor has a height of 720 pixels, but the setting is"):
        read_evt3(path, sensor=(480, 640))
    path.write_bytes(b"% evt 3.0\n% end\n" + events)
    found = read_evt3(path, sensor=(480, 640))
    assert (found.height, found.width) == (480, 640)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is not an EVT 3.0 or EVT 2.0 file"),
        (b"% evt 2.1\n% end\n", "is not an EVT 3.0 or EVT 2.0 file"),
        (HEADER, "no event|cannot be read"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "a.raw"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_evt3(path)


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'shortback\[events\]'"):
        read_evt3(tmp_path / "a.raw")
