import numpy as np
import pytest

from shortback.data.events.evt2 import read_evt2
from shortback.data.events.formats import read_events
from shortback.errors import UserError

HEADER = b"% evt 2.0\n% format EVT2;height=480;width=640\n% end\n"


def change(on, t, x, y):
    return on << 28 | (t & 63) << 22 | x << 11 | y


def words(*numbers):
    """Words of 32 bits by the format's description: the upper four say what the others are."""
    return np.array(numbers, dtype="<u4").tobytes()


def read(tmp_path, content, **settings):
    path = tmp_path / "a.raw"
    path.write_bytes(content)
    return read_events(path, **settings)


# One change before the first time, then 2 * 64 + 5 and 2 * 64 + 63 microseconds, a trigger, and 3 * 64.
EVENTS = words(
    change(1, 1, 9, 9),
    8 << 28 | 2,
    change(1, 5, 639, 7),
    change(0, 63, 8, 479),
    0xA << 28 | 1,
    8 << 28 | 3,
    change(1, 0, 1, 2),
)


def test_events_of_a_file_made_by_hand(tmp_path):
    found = read(tmp_path, HEADER + EVENTS)
    assert found.t.tolist() == [133, 191, 192]
    assert (found.x.tolist(), found.y.tolist()) == ([639, 8, 1], [7, 479, 2])
    assert found.on.tolist() == [True, False, True]
    assert (found.height, found.width) == (480, 640)


def test_the_clock_of_34_bits_goes_on(tmp_path):
    last = 2**28 - 1
    content = [8 << 28 | last, change(1, 60, 1, 0), 8 << 28, change(1, 2, 2, 0), 8 << 28 | last, change(1, 63, 3, 0)]
    content += [8 << 28 | 1, change(1, 3, 4, 0), 8 << 28 | 2**27, 8 << 28 | last, change(1, 0, 5, 0), 8 << 28]
    found = read(tmp_path, HEADER + words(*content, change(1, 7, 6, 0)))
    assert found.x.tolist() == [1, 3, 2, 4, 5, 6]  # the third was late, and is sorted to where it belongs
    assert found.t.tolist() == [2**34 - 4, 2**34 - 1, 2**34 + 2, 2**34 + 67, 2**35 - 64, 2**35 + 7]


@pytest.mark.parametrize("line", [b"% geometry 640x480\n", b"% Height 480\n% Width 640\n", b""])
def test_the_size_is_the_header_s_or_the_setting(tmp_path, line):
    found = read(tmp_path, b"% evt 2.0\n" + line + EVENTS, sensor=(480, 640))
    assert (found.height, found.width) == (480, 640)
    if line:
        with pytest.raises(UserError, match=r"a\.raw: its sensor has a height of 480 pixels"):
            read(tmp_path, b"% evt 2.0\n" + line + EVENTS, sensor=(720, 1280))


def test_events_may_begin_with_the_byte_of_a_header_s_lines(tmp_path):
    """As in files without the line `% end`."""
    first = 0x80000025  # a time, whose lowest byte is that of %
    found = read(tmp_path, b"% evt 2.0\n% geometry 640x480\n" + words(first, change(1, 5, 639, 7)))
    assert found.t.tolist() == [0x25 * 64 + 5]


def test_a_header_that_says_0_does_not_say_it(tmp_path):
    content = b"% evt 2.0\n% geometry 0x0\n% end\n" + EVENTS
    assert read(tmp_path, content, sensor=(480, 640)).width == 640
    found = read(tmp_path, content)  # by its events, with a warning
    assert (found.height, found.width) == (480, 640)


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.raw: is cut off after 7 whole events"):
        read(tmp_path, HEADER + EVENTS + b"\0")
    for content in (b"", words(8 << 28), words(change(1, 1, 1, 1))):
        with pytest.raises(UserError, match=r"a\.raw: there is no event in it"):
            read(tmp_path, HEADER + content)
    (tmp_path / "b.raw").write_bytes(b"% evt 3.0\n")
    with pytest.raises(UserError, match=r"b\.raw: is not an EVT 2\.0 file"):
        read_evt2(tmp_path / "b.raw")
