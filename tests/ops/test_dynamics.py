from dataclasses import dataclass

import pytest
import torch

from shortback.ops import Dynamics
from shortback.surrogates import Surrogate


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": float("inf")}, "threshold=inf"),
        ({"reset": "never"}, "must be one of hard, soft, none"),
        ({"reset": "soft", "reset_to": 0.1}, "only a hard reset sets the membrane to a value"),
        ({"initial": float("nan")}, "initial=nan"),
        ({"threshold": torch.nn.Parameter(torch.ones(()))}, "learned thresholds, .*are not supported"),
        ({"surrogate": "arctan"}, "shortback.surrogates"),
    ],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Dynamics(**wrong)


def test_equal_numbers_are_one_kind():
    assert Dynamics(threshold=0.5) == Dynamics(threshold=0.5)
    assert len({Dynamics(), Dynamics(), Dynamics(reset="soft")}) == 2


def test_a_surrogate_of_ones_own_is_told_from_others_by_its_numbers():
    """Or the kernel of the first would serve all of them."""

    @dataclass(frozen=True, kw_only=True)
    class Right(Surrogate):
        width: float = 1.0

    class Wrong(Surrogate):
        def __init__(self, width):
            super().__init__()
            self.width = width

    assert Dynamics(surrogate=Right(width=1.0)) != Dynamics(surrogate=Right(width=2.0))
    assert Wrong(1.0) == Wrong(2.0)
    with pytest.raises(ValueError, match=r"width must be a field.*@dataclass\(frozen=True, kw_only=True\)"):
        Dynamics(surrogate=Wrong(1.0))
