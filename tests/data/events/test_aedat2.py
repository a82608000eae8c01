import sys
from unittest.mock import MagicMock

import numpy as np
import pytest

from shortback.data.events.aedat2 import read_aedat2
from shortback.errors import UserError

HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n"


def file_of(tmp_path, *words, header=HEADER, rest=b""):
    path = tmp_path / "a.aedat"
    path.write_bytes(header + np.array(words, dtype=">u4").tobytes() + rest)
    return path


def test_an_event_by_hand(tmp_path):
    """0x205e is x 47, y 32, ON: upright at column 127 - 47 and row 127 - 32."""
    found = read_aedat2(file_of(tmp_path, 0x0000205E, 0x1F5848D7))
    assert (found.x.tolist(), found.y.tolist(), found.on.tolist()) == ([80], [95], [True])
    assert found.t.tolist() == [0x1F5848D7]


def test_cifar10_dvs_lies_on_its_side(tmp_path):
    found = read_aedat2(file_of(tmp_path, 0x0000205E, 1, 0x0000205F, 2), lies_on_its_side=True)
    assert (found.x.tolist(), found.y.tolist()) == ([95, 95], [80, 80])
    assert found.on.tolist() == [True, False]


def test_it_is_as_spikingjelly_reads_the_same_bytes(tmp_path, monkeypatch):
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):  # for its speech data alone
        monkeypatch.setitem(sys.modules, name, MagicMock())
    cifar10_dvs = pytest.importorskip("spikingjelly.datasets.cifar10_dvs")
    rng = np.random.default_rng(0)
    words = np.stack([rng.integers(0, 2**15, 500), np.sort(rng.integers(0, 10**6, 500))], axis=1)
    path = file_of(tmp_path, *words.ravel())
    theirs = cifar10_dvs._load_origin_data(path)
    ours = read_aedat2(path, lies_on_its_side=True)
    for mine, name in ((ours.t, "t"), (ours.x, "x"), (ours.y, "y"), (ours.on, "p")):
        np.testing.assert_array_equal(mine, theirs[name], err_msg=name)


def test_signals_from_outside_are_no_events(tmp_path):
    found = read_aedat2(file_of(tmp_path, 0x8000, 1, 0x0002, 2))
    assert (len(found), found.t.tolist()) == (1, [2])


def test_another_camera_is_named(tmp_path):
    davis = [33 << 22 | 100 << 12 | 1 << 11, 1, 34 << 22 | 101 << 12, 2]  # 30 bits: y, x, polarity
    with pytest.raises(UserError, match=r"a\.aedat: its addresses have more than 16 bits, as those of DAVIS cameras"):
        read_aedat2(file_of(tmp_path, *davis))
    with pytest.raises(UserError, match=r"a\.aedat: its sensor has a height of 128 pixels, but the setting is"):
        read_aedat2(file_of(tmp_path, 0x0000205E, 1), sensor=(180, 240))


def test_data_may_begin_with_the_sign_of_a_line_only_after_a_line(tmp_path):
    assert len(read_aedat2(file_of(tmp_path, 0x00000002, 5, header=b"#!AER-DAT2.0\r\n"))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + b"\0" * 11, "cut off after 1 whole event and"),
        (HEADER, "there is no event"),
        (b"#!AER-DAT2.0", "there is no event"),
        (b"\0" * 16, "is not an AEDAT 2.0 file"),
        (b"#!AER-DAT3.1\r\n", "is not an AEDAT 2.0 file"),
        (b"", "is not an AEDAT 2.0 file"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "b.aedat"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"b\.aedat.*{message}"):
        read_aedat2(path)
