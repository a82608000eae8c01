"""The cells of an ablation: variants of one recipe, each with a method, a seed and a value for every axis."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortback.choices import METHODS, Method, nearest
from shortback.errors import UserError
from shortback.recipes.effect import CONDITIONAL, keys_of, without_effect
from shortback.recipes.load import load_recipe
from shortback.recipes.methods import method_uses
from shortback.recipes.schema import Recipe
from shortback.recipes.yaml_text import read_yaml, write_yaml

MAX_CELLS = 500  # unless the caller allows more
MAX_COMBINATIONS = 100_000  # of values, before those without effect are dropped

_SECTIONS = {key.partition(".")[0] for key in CONDITIONAL}

Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Axis:
    """A key of the recipe and the values it takes."""

    key: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """Parse `key=value,value,...` with YAML values: `branches.at=stages,blocks`, `data.train_images=1000,null`.

        Raises:
            ValueError: there is no key or value, a value is not YAML or appears twice, or the key has its own option.
        """
        key, separator, values = text.partition("=")
        parsed = read_yaml(f"[{values}]", name=f"--vary {text}") if separator else []
        if not key or not parsed:
            raise UserError(f"--vary {text}: write key=value,value, for example --vary branches.at=stages,blocks")
        if key in ("method", "seed", "compare"):
            raise UserError(f"--vary {text}: methods and seeds have options of their own, --methods and --seeds")
        if len({in_words(value) for value in parsed}) < len(parsed):
            raise UserError(f"--vary {text}: a value appears twice")
        return cls(key, tuple(parsed))


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        settings: the axes that affect the run, with their values as text.
        method, seed: of the run.
        recipe: the complete recipe of the run.
    """

    settings: Settings
    method: Method
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """The folder of its run, within the folder of the ablation."""
        setting = on_one_line(self.settings).replace("/", "_").replace(" ", "")
        return Path(setting, f"{self.method}-seed{self.seed}") if setting else Path(f"{self.method}-seed{self.seed}")


def build_grid(
    recipe: str,
    *,
    settings: Iterable[str],
    methods: Sequence[str],
    seeds: int,
    axes: Sequence[Axis],
    many: bool = False,
) -> list[Cell]:
    """Build every cell once, seed by seed, so that the first comparisons are complete early.

    Args:
        recipe: a name or a file.
        settings: `key=value`, the same in every cell.
        methods: some of `METHODS`.
        seeds: number of seeds, counting up from the recipe's.
        axes: what else varies. A cell drops axes that have no effect given its other settings, and cells that are then
            equal become one.
        many: whether to allow more than 500 cells.

    Raises:
        ValueError: there are too many cells; a method or key is given twice; a method, key or value does not exist; a
            key has no effect.
    """
    for method in methods:
        if method not in METHODS:
            near = nearest(method, METHODS, or_else=", ".join(METHODS))
            raise UserError(f"--methods {method}: no such method; the nearest are {near}")
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: must be 1 or more")
    for what, names in (("--methods", list(methods)), ("--vary", [axis.key for axis in axes])):
        if len(set(names)) < len(names):
            raise UserError(f"{what} {', '.join(names)}: each may be given only once")
    for axis in axes:
        if not any(_may_affect(method, axis.key) for method in methods):
            raise UserError(f"--vary {axis.key}: it has no effect on {', '.join(methods)}; leave it out")
    settings = list(settings)
    kinds = _drop_ineffective(_kinds(methods, axes), recipe, settings)
    number = len(kinds) * seeds
    if number > MAX_CELLS and not many:
        raise UserError(f"{number} runs are more than {MAX_CELLS}: add --yes, or look at --plan first")
    first = load_recipe(recipe, settings=[*settings, "compare=null"]).seed
    cells = []
    for seed in range(first, first + seeds):
        for method, own_settings in kinds:
            own = [f"{key}={value}" for key, value in own_settings]
            parsed = load_recipe(recipe, settings=[*settings, *own, "compare=null", f"method={method}", f"seed={seed}"])
            cells.append(Cell(own_settings, parsed.method, seed, parsed))
    folders: dict[Path, Cell] = {}
    for cell in cells:
        other = folders.setdefault(cell.folder, cell)
        if other is not cell:
            values = " and ".join(on_one_line(one.settings) for one in (other, cell))
            raise UserError(f"--vary: {values} would write into the same folder, {cell.folder}: use other values")
    for setting in settings:
        reasons = [without_effect(cell.recipe, [setting]) for cell in cells]
        if reasons and all(reasons):
            raise UserError(f"-s {reasons[0]}")
    return cells


def _kinds(methods: Sequence[str], axes: Sequence[Axis]) -> list[tuple[str, Settings]]:
    """Every method with every combination of the values that may affect it, once."""
    number = math.prod(len(axis.values) for axis in axes)
    if number > MAX_COMBINATIONS:
        raise UserError(f"--vary: {number} combinations of values; at most {MAX_COMBINATIONS} are allowed")
    words = [[(axis.key, in_words(value)) for value in axis.values] for axis in axes]
    kinds = (
        (method, tuple((key, value) for key, value in chosen if _may_affect(method, key)))
        for chosen in itertools.product(*words)
        for method in methods
    )
    return list(dict.fromkeys(kinds))


def _may_affect(method: str, key: str) -> bool:
    """Whether a setting can affect a method, given suitable others: the `coefficient` may follow `start`."""
    return method_uses(method, key) or (method == "shortcut" and key == "branches.start")


def _drop_ineffective(
    kinds: Sequence[tuple[str, Settings]], recipe: str, settings: Sequence[str]
) -> list[tuple[str, Settings]]:
    """Drop the settings of each kind that have no effect given its others, and return each kind once.

    Raises:
        ValueError: a key has no effect on any kind.
    """

    @functools.cache
    def load(method: str, own: Settings) -> Recipe:
        words = [f"{key}={value}" for key, value in own]
        return load_recipe(recipe, settings=[*settings, "compare=null", f"method={method}", *words])

    reasons: dict[str, str | None] = {}
    result = []
    for method, own in kinds:
        kept = []
        # Whether a setting has an effect depends on these sections, so kinds that agree in them share a recipe.
        beside = tuple(each for each in own if each[0].partition(".")[0] in _SECTIONS)
        for key, value in own:
            parts = [each for each in keys_of([f"{key}={value}"]) if each == key or method_uses(method, each)]
            why = {each: _why_not(load, method, beside, each) for each in parts}
            if not why or None in why.values():
                kept.append((key, value))
            reasons |= {each: reason and reasons.get(each, reason) for each, reason in why.items()}
        result.append((method, tuple(kept)))
    for reason in filter(None, reasons.values()):
        raise UserError(f"--vary {reason}")
    return list(dict.fromkeys(result))


def _why_not(load: Callable[[str, Settings], Recipe], method: str, own: Settings, key: str) -> str | None:
    """Why a setting has no effect on a kind; None if it has one."""
    if key not in CONDITIONAL:
        return None
    recipe = load(method, own)
    if method_uses(method, key):
        return without_effect(recipe, [f"{key}="])
    with_other = load(method, (*own, (key, str(recipe.branches.start / 2 or 0.5))))
    if with_other.branches.coefficient != recipe.branches.coefficient:  # it follows the start unless it is given
        return None
    return f"{key}=...: it has no effect on {method}; leave it out"


def on_one_line(settings: Settings) -> str:
    """The settings as `key=value, key=value`; empty if there are none."""
    return ", ".join(f"{key}={value}" for key, value in settings)


def in_words(value: Any) -> str:
    """A value as YAML on one line."""
    return write_yaml(value, default_flow_style=True, width=10**6, sort_keys=True).removesuffix("\n...\n").strip()
