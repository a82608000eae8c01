from typing import get_args

import pytest

from shortback import choices
from shortback.choices import Memory, check_choice, nearest
from shortback.errors import UserError
from shortback.models.residual import BLOCKS
from shortback.neurons import NEURONS
from shortback.schedules import SCHEDULES
from shortback.surrogates import SURROGATES


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (choices.NeuronKind, NEURONS),
        (choices.SurrogateKind, SURROGATES),
        (choices.ScheduleKind, SCHEDULES),
        (choices.Residual, BLOCKS),
    ],
)
def test_what_is_named_is_there(names, table):
    assert list(get_args(names)) == list(table)


def test_a_wrong_choice_says_the_right_ones():
    check_choice("memory", "small", Memory)
    with pytest.raises(UserError, match=r"memory='large': must be one of fast, balanced, small"):
        check_choice("memory", "large", Memory)


def test_the_nearest_names():
    assert nearest("epohs", ["epochs", "ema", "width"]) == "epochs"
    assert nearest("xyz", ["epochs"]) == "none"
    assert nearest("xyz", ["epochs"], or_else="epochs") == "epochs"
