"""Words that YAML reads as true and false are told from numbers, in whatever type a field has."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from shortback.recipes.fields import Count, Fraction, Positive, Section


class Numbers(Section):
    count: Count | None = None
    either: Annotated[int, Field(ge=0)] | str = 0
    part: Fraction = 0.0
    positive: Positive = 1.0
    flag: bool = False


def test_numbers_and_words():
    assert Numbers.model_validate({"count": 3, "either": "auto", "flag": True}).flag
    for key in ("count", "either", "part", "positive"):
        with pytest.raises(ValidationError, match=f"{key}: must be a number; YAML reads yes"):
            Numbers.model_validate({key: True})


@pytest.mark.parametrize(("key", "value"), [("count", 0), ("part", 1.0), ("positive", 0.0), ("positive", float("inf"))])
def test_ranges(key, value):
    with pytest.raises(ValidationError, match=key):
        Numbers.model_validate({key: value})


def test_nothing_else_and_no_change():
    with pytest.raises(ValidationError, match="other"):
        Numbers.model_validate({"other": 1})
    with pytest.raises(ValidationError, match="frozen"):
        Numbers().count = 2
