import logging

import numpy as np
import pytest

from shortback.data.events.recording import Events
from shortback.errors import UserError


def events(t, **changes):
    n = len(t)
    fields = {"x": np.zeros(n, np.uint8), "y": np.zeros(n, np.uint8), "on": np.ones(n, np.uint8)} | changes
    return Events.checked(t=np.array(t), **fields, height=4, width=8, name="a.bin")


def test_a_clock_that_begins_anew_goes_on(caplog):
    found = events(np.array([2**32 - 5, 2**32 - 1, 3, 9], dtype=np.uint32))
    assert found.t.tolist() == [2**32 - 5, 2**32 - 1, 2**32 + 3, 2**32 + 9]
    assert not caplog.records


def test_times_out_of_order_are_sorted_and_said(caplog):
    with caplog.at_level(logging.WARNING, logger="shortback"):
        found = events([5, 3, 3, 9], x=np.array([0, 1, 2, 3], np.uint8))
    assert found.t.tolist() == [3, 3, 5, 9]
    assert found.x.tolist() == [1, 2, 0, 3]  # equal times stay as they were
    assert "a.bin: 1 events are not in the order" in caplog.text


@pytest.mark.parametrize(("axis", "value"), [("x", 8), ("y", 4), ("x", -1)])
def test_a_pixel_outside_the_sensor_is_named(axis, value):
    with pytest.raises(UserError, match=r"a.bin: 1 of its 2 events lie outside the sensor of 8 x 4"):
        events([1, 2], **{axis: np.array([0, value], np.int16)})


def test_no_event_is_named():
    with pytest.raises(UserError, match=r"a\.bin: there is no event in it"):
        events([])
