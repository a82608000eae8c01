import numpy as np
import pytest

from shortback.data.events.aedat3 import HEADER, read_aedat3
from shortback.errors import UserError

LINES = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"


def packet(events, *, kind=1, overflow=0, size=8):
    """A packet of `(valid, on, x, y, t)`."""
    words = [(valid | on << 1 | y << 2 | x << 17, t) for valid, on, x, y, t in events]
    header = HEADER.pack(kind, 0, size, 4, overflow, len(events), len(events), len(events))
    return header + np.array(words, dtype="<u4").tobytes()


def file_of(tmp_path, content):
    path = tmp_path / "a.aedat"
    path.write_bytes(content)
    return path


def test_packets_by_hand(tmp_path):
    content = LINES + packet([(1, 1, 3, 5, 10), (0, 1, 9, 9, 11), (1, 0, 127, 0, 12)])
    content += packet([(1, 1, 1, 1, 2**31 - 1)], kind=0) + packet([(1, 1, 2, 4, 1)], overflow=1)
    found = read_aedat3(file_of(tmp_path, content))
    assert found.x.tolist() == [3, 127, 2]
    assert found.y.tolist() == [5, 0, 4]
    assert found.on.tolist() == [True, False, True]
    assert found.t.tolist() == [10, 12, 2**31 + 1]


def test_the_sensor_of_another_camera_is_said_by_the_setting(tmp_path):
    found = read_aedat3(file_of(tmp_path, LINES + packet([(1, 1, 239, 179, 10)])), sensor=(180, 240))
    assert (found.x.tolist(), found.y.tolist(), found.height, found.width) == ([239], [179], 180, 240)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!AER-DAT2.0\r\n", "is not an AEDAT 3.1 file"),
        (
            LINES.replace(b"3.1", b"3.0") + packet([(1, 1, 0, 0, 1)]),
            "is AEDAT 3.0, whose rows are counted from the bottom",
        ),
        (b"#!AER-DAT3.1\r\n", "its header has no end marker"),
        (LINES, "there is no event"),
        (LINES + packet([(1, 1, 0, 0, 1)])[:-3], "cut off after 0 whole events"),
        (LINES + packet([(1, 1, 0, 0, 1)]) + b"\1\0", "cut off after 1 whole event"),
        (LINES + packet([(1, 1, 0, 0, 1), (1, 1, 0, 0, 2)], size=6), "has polarity events of 6 bytes instead of 8"),
        (LINES + packet([(1, 1, 200, 0, 1)]), "outside the sensor"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"a\.aedat.*{message}"):
        read_aedat3(file_of(tmp_path, content))
