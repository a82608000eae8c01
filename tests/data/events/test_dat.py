import numpy as np
import pytest

from shortback.data.events.dat import read_dat
from shortback.errors import UserError


def content_of(events, lines=b"% Data file\n% Height 180\n% Width 320\n", kind=12, size=8):
    words = np.array([(t, x | y << 14 | on << 28) for t, x, y, on in events], dtype="<u4")
    return lines + bytes([kind, size]) + words.tobytes()


def read(tmp_path, content):
    path = tmp_path / "a.dat"
    path.write_bytes(content)
    return read_dat(path)


def test_events_by_hand(tmp_path):
    found = read(tmp_path, content_of([(7, 300, 179, 1), (9, 0, 5, 0)]))
    assert (found.t.tolist(), found.x.tolist(), found.y.tolist()) == ([7, 9], [300, 0], [179, 5])
    assert found.on.tolist() == [True, False]
    assert (found.height, found.width) == (180, 320)
    assert read(tmp_path, content_of([(7, 303, 239, 1)], lines=b"% no size\n")).width == 304


def test_a_size_that_the_lines_do_not_say_is_that_of_the_setting(tmp_path):
    (tmp_path / "a.dat").write_bytes(content_of([(7, 639, 479, 1)], lines=b"% no size\n"))
    assert read_dat(tmp_path / "a.dat", sensor=(480, 640)).width == 640
    (tmp_path / "a.dat").write_bytes(content_of([(7, 1, 1, 1)]))
    with pytest.raises(UserError, match=r"a\.dat: its sensor has a height of 180 pixels"):
        read_dat(tmp_path / "a.dat", sensor=(480, 640))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no lines", "is not a DAT file"),
        (content_of([(1, 1, 1, 1)], kind=5), "is not a DAT file"),
        (content_of([(1, 1, 1, 1)], size=4), "is not a DAT file"),
        (content_of([(1, 1, 1, 1)])[:-1], "cut off after 0 whole events"),
        (content_of([]), "there is no event"),
        (content_of([(1, 320, 1, 1)]), "outside the sensor"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"a\.dat.*{message}"):
        read(tmp_path, content)
