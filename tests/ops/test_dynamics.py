import pytest
import torch

from shortback.ops import Dynamics


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": float("inf")}, "threshold=inf"),
        ({"reset": "never"}, "must be one of hard, soft, none"),
        ({"reset": "soft", "reset_to": 0.1}, "only a hard reset goes to a value"),
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
