import pytest

from shortback.errors import UserError
from shortback.training import Plan


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"log_every": 0},
        {"log_every": None},
        {"watch_every": 0},
        {"watch_samples": 1},
        {"accumulate": 0},
        {"patience": 0},
        {"accumulate": 1.5},
        {"checkpoint_every": 0},
        {"clip_norm": 0.0},
        {"clip_norm": float("nan")},
        {"ema": 1.0},
        {"ema": "0.9"},
        {"clip_norm": "1"},
        {"hang_minutes": "15"},
        {"watch_samples": "16"},
        {"watch_samples": 2.5},
        {"epochs": True},
        {"accumulate": True},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"{name}="):
        Plan(**{"epochs": 1, **wrong})


def test_what_is_off_is_none():
    plan = Plan(epochs=1, checkpoint_every=None, watch_every=None, clip_norm=None, ema=None)
    assert (plan.accumulate, plan.log_every) == (1, 10)
