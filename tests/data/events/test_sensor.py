import pickle

import pytest

from shortback.data.events.sensor import SensorUnknownError, agreed, check_size, described, shown, warn_of_sizes
from shortback.errors import UserError


@pytest.mark.parametrize(
    ("height", "width", "sensor", "expected"),
    [
        (None, None, None, (None, None)),
        (48, 64, None, (48, 64)),
        (48, None, None, (48, None)),
        (None, None, (48, 64), (48, 64)),
        (48, 64, (48, 64), (48, 64)),
        (None, 64, (48, 64), (48, 64)),
    ],
)
def test_the_setting_is_for_what_the_file_does_not_say(height, width, sensor, expected):
    assert agreed(height, width, sensor, name="a.npz") == expected


@pytest.mark.parametrize(("height", "width", "what"), [(49, 64, "height of 49"), (None, 65, "width of 65")])
def test_a_file_that_says_another_size_is_named(height, width, what):
    with pytest.raises(
        UserError, match=rf"a\.npz: its sensor has a {what} pixels, but the setting is sensor=\[48, 64\]"
    ):
        agreed(height, width, (48, 64), name="a.npz")


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4, 4097), (60001, 4)])
def test_sizes_that_no_sensor_has_are_named(size):
    check_size((1, 4096), name="a.npz")
    with pytest.raises(UserError, match=r"a\.npz: its sensor would have height .*: is an address corrupt"):
        check_size(size, name="a.npz")


def test_sizes_in_words():
    assert shown((48, 64)) == "height 48, width 64"
    assert described({(48, 64): 3}, "as said") == "height 48, width 64 (as said)"
    several = described({(48, 64): 1, (34, 34): 2}, "as said")
    assert several == "height 34, width 34 in 2 recordings; height 48, width 64 in 1 recording (as said)"


@pytest.mark.parametrize(
    ("sizes", "frame", "keep_aspect", "warned"),
    [
        ({(48, 64): 3}, 48, False, []),
        ({(48, 64): 3}, 49, False, ["data.frames.size=48 is the largest"]),
        ({(48, 64): 3}, 64, True, []),
        ({(48, 64): 3}, 65, True, ["data.frames.size=64 is the largest"]),
        ({(48, 64): 3, (34, 34): 1}, 40, False, ["of several sizes", "(height 34, width 34): rows or columns"]),
        ({}, 1000, False, []),
    ],
)
def test_what_does_not_fit_is_warned_of(sizes, frame, keep_aspect, warned, caplog):
    warn_of_sizes(sizes, frame=frame, keep_aspect=keep_aspect, root="recordings")
    assert len(caplog.records) == len(warned)
    for record, words in zip(caplog.records, warned, strict=True):
        assert words in record.getMessage()


def test_what_is_unknown_comes_through_processes():
    error = pickle.loads(pickle.dumps(SensorUnknownError("a.npz", (3, 4))))
    assert (error.name, error.reach) == ("a.npz", (3, 4))
    assert str(error).startswith("a.npz: does not say how large the sensor is; its events reach height 3, width 4")
