"""What a call was given, by position or by name: `conv(x)` and `conv(input=x)` are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from shortback.errors import UserError


def input_of(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a module that takes one value was given.

    Raises:
        ValueError: it was given nothing.
    """
    given = (*args, *kwargs.values())
    if not given:
        raise UserError(f"a {type(module).__name__} was called with nothing: give it its input")
    return given[0]


def named(parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the parameters; those beyond are named by their number, from 0."""
    names = (*parameters, *map(str, range(len(parameters), len(args))))
    return {**dict(zip(names, args, strict=False)), **kwargs}
