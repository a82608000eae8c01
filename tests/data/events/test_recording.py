import logging

import numpy as np
import pytest

from shortback.data.events.recording import Events, unwrap_clock
from shortback.data.events.sensor import SensorUnknownError
from shortback.errors import UserError


def events(t, **changes):
    n = len(t)
    fields = {"x": np.zeros(n, np.uint8), "y": np.zeros(n, np.uint8), "on": np.ones(n, np.uint8)} | changes
    return Events.checked(t=np.array(t), **fields, height=4, width=8, name="a.bin")


def test_a_clock_that_begins_anew_goes_on(caplog):
    found = events(np.array([2**32 - 5, 2**32 - 1, 3, 9], dtype=np.uint32))
    assert found.t.tolist() == [2**32 - 5, 2**32 - 1, 2**32 + 3, 2**32 + 9]
    assert not caplog.records


def test_events_out_of_order_where_a_clock_begins_anew_are_one_beginning(caplog):
    t = np.array([2**32 - 2, 0, 2**32 - 1, 1, 2], dtype=np.int64)
    found = events(t, x=np.arange(5, dtype=np.uint8))
    assert found.t.tolist() == [2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1, 2**32 + 2]
    assert found.x.tolist() == [0, 2, 1, 3, 4]
    assert "1 event is out of order" in caplog.text


def test_a_signed_clock_goes_on_and_one_of_64_bits_is_taken_as_it_is():
    signed = events(np.array([2**31 - 2, -(2**31), -(2**31) + 5], dtype=np.int32))
    assert signed.t.tolist() == [2**31 - 2, 2**31, 2**31 + 5]
    assert events(np.array([0, 1, 2, 2**33, 3, 4])).t.tolist() == [0, 1, 2, 3, 4, 2**33]


def test_a_long_pause_before_any_new_beginning_is_a_pause():
    pause = 40 * 60 * 10**6  # more than half of the period
    t = np.array([0, 10, 5, 20, pause, pause + 5])
    assert unwrap_clock(t, 2**32).tolist() == t.tolist()
    assert unwrap_clock(np.array([2**32 - 2, 0, 2**32 - 1, 1]), 2**32).tolist() == [
        2**32 - 2,
        2**32,
        2**32 - 1,
        2**32 + 1,
    ]


def test_a_late_event_of_before_the_wrap_at_which_a_recording_begins(caplog):
    found = events(np.array([2, 2**32 - 3, 4, 5], dtype=np.uint32), x=np.arange(4, dtype=np.uint8))
    assert found.t.tolist() == [-3, 2, 4, 5]
    assert found.x.tolist() == [1, 0, 2, 3]
    assert "1 event is out of order" in caplog.text


def test_times_out_of_order_are_sorted_and_said(caplog):
    with caplog.at_level(logging.WARNING, logger="shortback"):
        found = events([5, 3, 3, 9], x=np.array([0, 1, 2, 3], np.uint8))
    assert found.t.tolist() == [3, 3, 5, 9]
    assert found.x.tolist() == [1, 2, 0, 3]  # equal times stay as they were
    assert "a.bin: 1 event is out of order" in caplog.text


@pytest.mark.parametrize(("axis", "value"), [("x", 8), ("y", 4), ("x", -1)])
def test_a_pixel_outside_the_sensor_is_named(axis, value):
    with pytest.raises(UserError, match=r"a.bin: 1 of its 2 events lie outside the sensor of 8 x 4"):
        events([1, 2], **{axis: np.array([0, value], np.int16)})


def test_no_event_is_named():
    with pytest.raises(UserError, match=r"a\.bin: there is no event in it"):
        events([])


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize(("axis", "other"), [("x", "y"), ("y", "x")])
def test_either_axis_may_be_negative_and_is_refused(axis, other, kind):
    axes = {axis: np.array([0, -3]).astype(kind), other: np.zeros(2, np.uint16)}
    with pytest.raises(UserError, match=r"1 of its 2 events lie outside"):
        events([1, 2], **axes)


@pytest.mark.parametrize("kind", [np.int32, np.uint64, np.float16, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_taken(kind):
    numbers = {name: np.array(values, kind) for name, values in {"x": [7, 0], "y": [3, 1], "on": [1, 0]}.items()}
    found = events(np.array([10, 30], kind), **numbers)
    assert (found.t.tolist(), found.x.tolist(), found.y.tolist()) == ([10, 30], [7, 0], [3, 1])
    assert found.on.tolist() == [True, False]
    assert (found.t.dtype, found.on.dtype) == (np.int64, bool)
    assert found.x.dtype.kind in "iu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.array([0, 0.5])}, r"x must be whole numbers, but 1 of its 2 are not, for example 0\.5"),
        ({"y": np.array([np.nan, 0])}, "y must be whole numbers, but 1 of its 2 are not, for example nan"),
        ({"y": np.array([1e300, 0])}, "y must be whole numbers, but 1 of its 2 are not"),
        ({"x": np.array([1j, 0])}, "x must be whole numbers, not complex128"),
        ({"x": np.array(["a", "b"])}, "x must be whole numbers, not <U1"),
        ({"on": np.array([np.nan, 1])}, "p must be whole numbers, but 1 of its 2 are not, for example nan"),
        ({"on": np.array([0.5, 1])}, r"p must be whole numbers, but 1 of its 2 are not, for example 0\.5"),
        ({"on": np.array([1, 2])}, r"p must be 1 \(ON\) and 0 or -1 \(OFF\), but ranges from 1 to 2"),
        ({"on": np.array([1, 0], complex)}, "p must be whole numbers, not complex128"),
        ({"t": np.array([np.nan, 3])}, "t must be whole numbers, but 1 of its 2 are not, for example nan"),
        ({"t": np.array([3, np.inf])}, "t must be whole numbers, but 1 of its 2 are not, for example inf"),
        ({"t": np.array([1, 2], complex)}, "t must be whole numbers, not complex128"),
    ],
)
def test_numbers_that_are_not_whole_are_named(changes, message):
    with pytest.raises(UserError, match=rf"a\.bin: {message}"):
        events(**{"t": [1, 2], **changes})


@pytest.mark.parametrize("t", [[0.25, 0.75], [0.0, 1e-6], [0.0, 1.0, 3.0], [1.5e9, 1.5e9 + 0.5], [0.0, 60.123456]])
def test_times_in_seconds_are_refused_with_what_to_write(t):
    match = r"a\.bin: its times, .* look like seconds \(a recording of .* s\).*write \(t \* 1e6\)\.round\(\)\.astype"
    with pytest.raises(UserError, match=match):
        events(np.array(t))
    assert events((np.array(t) * 1e6).astype(np.int64)).t.tolist() == [round(1e6 * each) for each in t]


@pytest.mark.parametrize("t", [[0.0, 0.25, 300.125], [5.001, 5.002, 9000.5], [1.5e12, 1.5e12 + 300.125]])
def test_times_in_milliseconds_are_known_from_seconds(t):
    match = r"look like milliseconds \(a recording of (0\.300125|8\.9955) s\).*write \(t \* 1e3\)\.round\(\)\.astype"
    with pytest.raises(UserError, match=match):
        events(np.array(t))
    assert events((np.array(t) * 1e3).round().astype(np.int64)).t.tolist() == [round(1e3 * each) for each in t]


def test_one_time_or_whole_microseconds_as_floats_are_no_seconds():
    assert events(np.array([5.0, 5.0])).t.tolist() == [5, 5]
    assert events(np.array([0.0, 2.0, 4.0])).t.tolist() == [0, 2, 4]
    assert events([0, 1, 2]).t.tolist() == [0, 1, 2]


def test_polarity_may_be_of_both_signs():
    assert events([1, 2, 3], on=np.array([-1, 1, 0], np.int8)).on.tolist() == [False, True, False]
    assert events([1, 2], on=np.array([-1.0, 1.0])).on.tolist() == [False, True]


def test_a_size_that_nothing_says_is_not_guessed():
    x, y, one = np.array([3, 6], np.uint8), np.array([2, 1]), np.ones(2, bool)
    with pytest.raises(SensorUnknownError, match=r"a\.npz: does not say how large the sensor is.* height 3, width 7"):
        Events.checked(t=np.array([1, 2]), x=x, y=y, on=one, height=None, width=None, name="a.npz")
    with pytest.raises(SensorUnknownError, match="height 3, width 9"):
        Events.checked(t=np.array([1, 2]), x=x, y=y, on=one, height=None, width=9, name="a.npz")
    with pytest.raises(UserError, match="1 of its 2 events lie outside"):
        Events.checked(t=np.array([1, 2]), x=np.array([-1, 1]), y=y, on=one, height=None, width=5, name="a.npz")


def test_an_event_outside_is_named_and_so_are_sizes_in_the_wrong_order():
    x, y, one = np.array([3, 60000]), np.array([2, 1]), np.ones(2, bool)
    with pytest.raises(UserError, match=r"outside the sensor of 64 x 48 pixels .* x=60000 y=1: is the file from"):
        Events.checked(t=np.array([1, 2]), x=x, y=y, on=one, height=48, width=64, name="a.npz")
    with pytest.raises(UserError, match=r"x=60 y=1: they would fit the other way round"):
        Events.checked(t=np.array([1, 2]), x=np.array([3, 60]), y=y, on=one, height=64, width=48, name="a.npz")


def test_a_size_that_no_sensor_has_is_refused():
    with pytest.raises(UserError, match=r"a\.bin: its sensor would have height 4, width 60001"):
        Events.checked(
            t=np.array([1]), x=np.zeros(1, int), y=np.zeros(1, int), on=np.ones(1), height=4, width=60001, name="a.bin"
        )


@pytest.mark.parametrize("begin", [0, 1_700_000_000_000_000])  # the start of the recording, or 1970
def test_blocks_of_a_long_recording_are_sorted_and_not_taken_for_another_turn_of_a_clock(begin):
    """Forty minutes, ON first and then OFF: a step down of more than half of 32 bits, in times of 64."""
    t = begin + np.arange(100) * 24_000_000
    x, on = np.zeros(200, int), np.r_[np.ones(100, int), np.zeros(100, int)]
    events = Events.checked(t=np.r_[t, t], x=x, y=x, on=on, height=1, width=1, name="it")
    assert events.t.tolist() == sorted([*t.tolist(), *t.tolist()])


def test_times_beyond_what_is_signed_are_refused():
    t, x = np.array([2**63 + 1, 2**63 + 2], np.uint64), np.zeros(2, int)
    with pytest.raises(ValueError, match="t must be below"):
        Events.checked(t=t, x=x, y=x, on=x, height=1, width=1, name="it")
