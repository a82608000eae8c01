import math

import pytest

from shortback.schedules import SCHEDULES, Constant, Cosine, Exponential, Linear, Step, is_zero_from

PROGRESS = [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(value=0.4), [0.4] * 5),
        (Linear(start=1.0, end=0.0), [1, 0.75, 0.5, 0.25, 0]),
        (Linear(start=1.0, end=0.2, over=0.5), [1, 0.6, 0.2, 0.2, 0.2]),
        (Cosine(start=2.0, end=0.0), [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5), 0]),
        (Exponential(start=1.0, end=0.0, rate=2 * math.log(2)), [1, (2**-0.5 - 0.25) / 0.75, 1 / 3, None, 0]),
        (Step(start=1.0, end=0.0, num_levels=3), [1, 1, 0.5, 0.5, 0]),
    ],
)
def test_closed_forms(schedule, expected):
    for progress, value in zip(PROGRESS, expected, strict=True):
        if value is not None:
            assert schedule(progress) == pytest.approx(value)


@pytest.mark.parametrize("kind", [k for k in SCHEDULES.values() if k is not Constant])
def test_falling_schedules_fall_and_end_where_they_should(kind):
    schedule = kind(start=1.5, end=0.5, over=0.8)
    values = [schedule(i / 100) for i in range(101)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.5
    assert values[80:] == [0.5] * 21


def test_when_branches_are_of_no_more_use():
    assert is_zero_from(Constant(value=0.0), 0.0)
    assert not is_zero_from(Constant(value=0.1), 1.0)
    falling = Linear(over=0.5)
    assert [is_zero_from(falling, p) for p in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    assert not is_zero_from(Linear(end=0.1), 1.0)
    assert not is_zero_from(lambda p: 0.0, 1.0)  # a function of the user's own says nothing about later


@pytest.mark.parametrize("progress", [-0.1, 1.01, math.nan])
def test_progress_outside_is_refused(progress):
    for kind in SCHEDULES.values():
        with pytest.raises(ValueError, match="between 0"):
            kind()(progress)


def test_wrong_numbers_are_refused():
    for make, message in (
        (lambda: Linear(start=-1), "start=-1"),
        (lambda: Constant(value=math.inf), "value=inf"),
        (lambda: Cosine(over=0), "over=0"),
        (lambda: Exponential(rate=0), "rate=0"),
        (lambda: Step(num_levels=1), "num_levels=1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
