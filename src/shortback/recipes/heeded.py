"""Which settings change nothing of a training, since they are of another kind or method than the one that is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from shortback.choices import ScheduleKind
from shortback.errors import UserError
from shortback.recipes.load import flatten
from shortback.recipes.schema import Recipe
from shortback.recipes.yaml_text import read_yaml

_SCHEDULES: tuple[ScheduleKind, ...] = get_args(ScheduleKind)

# A setting, what chooses whether it counts, and the choices with which it does.
_OF: dict[str, tuple[str, tuple[str, ...]]] = {
    "optimizer.momentum": ("optimizer.kind", ("sgd",)),
    "loss.tet_weight": ("loss.kind", ("tet",)),
    "branches.rate": ("branches.schedule", ("exponential",)),
    "branches.num_levels": ("branches.schedule", ("step",)),
    "branches.share": ("branches.schedule", ("adaptive",)),
    "branches.start": ("branches.schedule", tuple(kind for kind in _SCHEDULES if kind != "adaptive")),
    "branches.over": ("branches.schedule", tuple(kind for kind in _SCHEDULES if kind != "constant")),
    "branches.end": ("branches.schedule", tuple(kind for kind in _SCHEDULES if kind not in ("adaptive", "constant"))),
    "branches.coefficient": ("method", ("shortcut",)),
}
CONDITIONAL = frozenset(_OF)


def check_heeded(recipe: Recipe, settings: Iterable[str]) -> None:
    """See that settings `key=value`, which a recipe has already, change what it trains.

    Raises:
        ValueError: the first that does not, and what it belongs to.
    """
    if wrong := unheeded(recipe, settings):
        raise UserError(f"-s {wrong}")


def unheeded(recipe: Recipe, settings: Iterable[str]) -> str | None:
    """The first of some settings `key=value` that changes nothing of a training by a recipe, and why; None without one.

    A recipe that compares has the methods that it compares, and its own where that is among the settings.
    """
    keys = keys_of(settings)
    flat = flatten(recipe.model_dump(mode="json"))
    methods = {side if isinstance(side, str) else side.method for side in recipe.compare or [recipe.method]}
    methods |= {recipe.method} if "method" in keys else set()
    for key in keys:
        chooser, choices = _OF.get(key, ("", ()))
        chosen = methods if chooser == "method" else {flat.get(chooser)}
        if chooser and not chosen & set(choices):
            here, there = ", ".join(sorted(map(str, chosen))), " or ".join(choices)
            return f"{key}=...: it is of {chooser}={there}, and this is {here}; choose that, or leave it out"
    return None


def keys_of(settings: Iterable[str]) -> list[str]:
    """The dotted keys of settings `key=value`, those within a section that is given as a whole too."""
    return [
        key for one in settings for key in flatten({one.partition("=")[0]: read_yaml(one.partition("=")[2], name=one)})
    ]
