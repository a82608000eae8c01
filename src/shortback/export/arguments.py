"""Read the arguments of a call whether given by position or by name: `conv(x)` and `conv(input=x)` are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from shortback.errors import UserError


def input_of(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The first argument of a call of a module, by position or by name.

    Raises:
        ValueError: the module was called without arguments.
    """
    given = (*args, *kwargs.values())
    if not given:
        raise UserError(f"a {type(module).__name__} was called with nothing: give it its input")
    return given[0]


def named(parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name; positional ones beyond `parameters` get their position, from 0, as a name."""
    names = (*parameters, *map(str, range(len(parameters), len(args))))
    return {**dict(zip(names, args, strict=False)), **kwargs}
