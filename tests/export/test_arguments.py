import pytest
from torch import nn

from shortback.export.arguments import input_of, named


def test_an_input_by_name_is_the_one_by_position():
    conv = nn.Conv2d(1, 1, 1)
    assert input_of(conv, ("x",), {}) == input_of(conv, (), {"input": "x"}) == "x"
    with pytest.raises(ValueError, match="a Conv2d was called with nothing"):
        input_of(conv, (), {})


def test_arguments_have_the_names_of_parameters():
    assert named(("a", "b"), (1,), {"b": 2}) == {"a": 1, "b": 2}
    assert named(("a", "b"), (1, 2, 3), {"alpha": 4}) == {"a": 1, "b": 2, "2": 3, "alpha": 4}
