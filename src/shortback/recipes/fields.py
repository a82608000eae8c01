"""The base class of recipe sections, and the number types used in them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def _types_in(annotation: Any) -> set[Any]:
    """An annotation and all types nested in it, such as the members of a union."""
    return {annotation}.union(*map(_types_in, get_args(annotation))) if isinstance(annotation, Hashable) else set()


class Section(BaseModel):
    """A group of settings: immutable, and without unknown keys. The string below each field describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _tell_words_from_numbers(cls, tree: Any) -> Any:
        """Refuse booleans for numbers: YAML reads `yes`, `no`, `on` and `off` as such, which would pass for 1 and 0."""
        for key, field in cls.model_fields.items() if isinstance(tree, dict) else ():
            if isinstance(tree.get(key), bool) and {int, float} & _types_in(field.annotation):
                raise ValueError(f"{key}: must be a number; YAML reads yes, no, on and off as true and false")
        return tree


def section_in(annotation: Any) -> type[Section] | None:
    """The section class in an annotation, alone or in a union or list; None if there is none."""
    kinds = (kind for kind in _types_in(annotation) if isinstance(kind, type) and issubclass(kind, Section))
    return next(kinds, None)
