"""Find settings without effect on a training, because they belong to a kind or method that was not chosen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from shortback.choices import ScheduleKind
from shortback.errors import UserError
from shortback.recipes.load import flatten
from shortback.recipes.methods import method_uses
from shortback.recipes.schema import Recipe
from shortback.recipes.yaml_text import read_yaml

_SCHEDULES: tuple[ScheduleKind, ...] = get_args(ScheduleKind)

# By setting: the one that decides whether it has an effect, and the choices with which it has.
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


def check_effect(recipe: Recipe, settings: Iterable[str]) -> None:
    """Check that settings `key=value`, already applied to a recipe, have an effect on its training.

    Raises:
        ValueError: a setting has none; the message says what it belongs to.
    """
    if wrong := without_effect(recipe, settings):
        raise UserError(f"-s {wrong}")


def without_effect(recipe: Recipe, settings: Iterable[str]) -> str | None:
    """The first of some settings `key=value` without effect on a recipe's training, and why; None if all have one.

    The methods of a recipe with `compare` are those of its sides, and its own if `method` is among the settings.
    """
    keys = keys_of(settings)
    flat = flatten(recipe.model_dump(mode="json"))
    methods = {side if isinstance(side, str) else side.method for side in recipe.compare or [recipe.method]}
    methods |= {recipe.method} if "method" in keys else set()
    for key in keys:
        chooser, choices = _OF.get(key, ("", ()))
        if chooser != "method" and not any(_heeds(method, key, recipe) for method in methods):
            return f"{key}=...: has no effect on the method {' or '.join(sorted(methods))}; leave it out"
        chosen = methods if chooser == "method" else {flat.get(chooser)}
        if chooser and not chosen & set(choices):
            here, there = ", ".join(sorted(map(str, chosen))), " or ".join(choices)
            return f"{key}=...: applies only to {chooser}={there}, and this is {here}; choose that, or leave it out"
    return None


def _heeds(method: str, key: str, recipe: Recipe) -> bool:
    """Whether a setting of the branches affects a method; `coefficient` follows `start` where losses are added."""
    follows = method == "shortcut" and key == "branches.start" and recipe.branches.combine != "logits"
    return follows or method_uses(method, key)


def keys_of(settings: Iterable[str]) -> list[str]:
    """The dotted keys of settings `key=value`; a section given as a whole counts as all keys in it."""
    return [
        key for one in settings for key in flatten({one.partition("=")[0]: read_yaml(one.partition("=")[2], name=one)})
    ]
