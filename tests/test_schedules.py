import math

import numpy as np
import pytest
import torch

from shortback.schedules import SCHEDULES, Adaptive, Constant, Cosine, Exponential, Linear, Step, as_schedule

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


@pytest.mark.parametrize("rate", [1e-6, 1e-12, 1e-17])
def test_an_exponential_of_hardly_any_rate_is_a_straight_line(rate):
    schedule, line = Exponential(start=1.0, rate=rate), Linear(start=1.0)
    assert [schedule(p) for p in PROGRESS] == pytest.approx([line(p) for p in PROGRESS], rel=1e-6)


@pytest.mark.parametrize("kind", [k for k in SCHEDULES.values() if k not in (Constant, Adaptive)])
def test_falling_schedules_fall_and_end_where_they_should(kind):
    schedule = kind(start=1.5, end=0.5, over=0.8)
    values = [schedule(i / 100) for i in range(101)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.5
    assert values[80:] == [0.5] * 21


@pytest.mark.parametrize(
    ("schedule", "ratio", "expected"),
    [
        (Adaptive(start=0.5), 1.0, [1, 3 / 5, 1 / 3, 1 / 7, 0]),
        (Adaptive(start=0.5), 4.0, [4, 12 / 5, 4 / 3, 4 / 7, 0]),
        (Adaptive(start=0.5, largest=2.0), math.inf, [2, 2, 2, 2, 0]),
        (Adaptive(start=0.8, end=0.8, combine="convex"), 0.5, [2 / 3] * 5),
        (Adaptive(start=0.5, combine="convex"), math.inf, [1, 1, 1, 1, 0]),
        (Adaptive(start=0.5, combine="convex"), math.nan, [1, 1, 1, 1, 0]),
        (Adaptive(start=0.6, end=0.2, over=0.5), 0.0, [0.01, 0.02 / 3, 0.01 / 3, 0.01 / 3, 0.01 / 3]),
        # The main gradient does not reach the first layer: the coefficient falls with the share, and not to 0 at once.
        (Adaptive(), 1e-9, [0.01, 0.0075, 0.005, 0.0025, 0]),
        (Adaptive(smallest=0.4), 0.3, [0.4, 0.3, 0.2, 0.1, 0]),
        (Adaptive(smallest=0.4, combine="convex"), 0.0, [0.4, 0.3, 0.2, 0.1, 0]),
        (Adaptive(smallest=0.4, largest=0.2), 0.0, [0.2, 0.2, 0.2, 0.1, 0]),
        (Adaptive(smallest=0), 0.0, [0] * 5),
        (Adaptive(start=0.0, end=0.5), 0.0, [0, 0.0025, 0.005, 0.0075, 0.01]),
    ],
)
def test_the_adaptive_coefficient_by_hand(schedule, ratio, expected):
    assert [schedule(progress, ratio) for progress in PROGRESS] == pytest.approx(expected)


def test_when_branches_are_of_no_more_use():
    assert Constant(value=0.0).is_zero_from(0.0)
    assert not Constant(value=0.1).is_zero_from(1.0)
    falling = Linear(over=0.5)
    assert [falling.is_zero_from(p) for p in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    assert not Linear(end=0.1).is_zero_from(1.0)
    assert [Adaptive(over=0.5).is_zero_from(p) for p in (0.0, 0.5)] == [False, True]
    assert not as_schedule(lambda p: 0.0).is_zero_from(1.0)  # a function of the user's own says nothing about later


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
        (lambda: Step(num_levels=2.5), r"num_levels=2.5\): must be a whole number"),
        (lambda: Adaptive(start=1.0), "start=1.0"),
        (lambda: Adaptive(over=2), "over=2"),
        (lambda: Adaptive(largest=0), "largest=0"),
        (lambda: Adaptive(smallest=-1), r"smallest=-1.*0 or a positive number"),
        (lambda: Adaptive(smallest=2, combine="convex"), r"smallest=2.*between 0 and 1"),
        (lambda: Linear(start="1"), r"Linear\(start='1'\): must be a number"),
        (lambda: Cosine(over=None), r"Cosine\(over=None\): must be a number"),
        (lambda: Exponential(rate="5"), r"Exponential\(rate='5'\): must be a number"),
        (lambda: Constant(value=torch.ones(1)), "must be a number"),
        (lambda: Adaptive(start="0.5"), r"Adaptive\(start='0.5'\): must be a number"),
        (lambda: Adaptive(combine="convx"), "combine='convx': must be one of logits, additive, convex"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_a_class_is_no_schedule():
    with pytest.raises(ValueError, match=r"schedule=Linear is a class: write Linear\(\)"):
        as_schedule(Linear)
    with pytest.raises(ValueError, match="schedule='linear': must be"):
        as_schedule("linear")


@pytest.mark.parametrize(
    ("schedule", "combine", "fits"),
    [
        (Adaptive(), "logits", True),
        (Adaptive(), "additive", True),
        (Adaptive(), "convex", False),
        (Adaptive(combine="convex"), "convex", True),
        (Adaptive(combine="convex"), "logits", False),
        (Linear(), "convex", True),
    ],
)
def test_an_adaptive_one_is_for_losses_of_its_kind(schedule, combine, fits):
    if fits:
        schedule.check_combine(combine)
        return
    with pytest.raises(ValueError, match=rf"write Adaptive\(combine='{combine}'\)"):
        schedule.check_combine(combine)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5)])
def test_numbers_of_numpy_and_tensors_are_numbers(number):
    assert as_schedule(number) == Constant(value=0.5)
    schedule = Linear(start=number)
    assert [schedule(p) for p in (0.0, 0.5)] == [0.5, 0.25]
    assert repr(schedule) == repr(Linear(start=0.5))


@pytest.mark.parametrize("num_levels", [3, 7, 50])
def test_a_step_comes_at_its_very_iteration(num_levels):
    """1 / 49 * 49 is a little below 1."""
    gaps = num_levels - 1
    schedule = Step(start=1.0, num_levels=num_levels)
    for scale in (1, 3, 11):
        levels = [schedule(i / (gaps * scale)) for i in range(gaps * scale + 1)]
        assert levels == pytest.approx([1 - i // scale / gaps for i in range(gaps * scale + 1)])
