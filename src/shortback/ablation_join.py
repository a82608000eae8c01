"""Runs of several ablations side by side, each under the settings in which their recipes differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shortback.ablation_results import BASELINE, Run, read_run
from shortback.config import BranchesConfig
from shortback.grid import in_words
from shortback.runs import RunFolder

CELLS_FILE = "cells.json"

_NO_SETTINGS = {"method", "seed", "data.root", "data.download"}  # what a run is, and where its data lies


@dataclass(frozen=True)
class _Found:
    """A run folder, and what the ablation it belongs to knows of it."""

    ablation: Path
    path: Path
    setting: str
    method: str
    seed: int
    recipe: dict[str, Any] | None


def join(folders: Sequence[Path]) -> list[Run]:
    """The runs of ablations, or of single runs; of one ablation under the settings that it varies.

    Runs of several are told apart by every setting of their recipes that is not the same in all of them; those of
    branches say nothing of vanilla training, and go without saying where they are the usual ones. Where that leaves two
    of one seed, they keep the names of their folders.

    Raises:
        ValueError: a folder that holds neither.
    """
    found = list({one.path.resolve(): one for folder in folders for one in _found(folder)}.values())
    if len(folders) > 1:
        found = _by_recipe(found)
    return [read_run(f.setting, f.method, f.seed, f.path, within=_base(f, len(folders) == 1)) for f in found]


def _found(folder: Path) -> list[_Found]:
    cells = folder / CELLS_FILE
    if not cells.exists():
        recipe = RunFolder(folder).read_recipe()  # or its error
        return [_Found(folder, folder, "", recipe.method, recipe.seed, _flat(recipe.model_dump(mode="json")))]
    return [
        _Found(folder, folder / path, cell["setting"], cell["method"], cell["seed"], _recipe(folder / path))
        for path, cell in json.loads(cells.read_text()).items()
    ]


def _recipe(path: Path) -> dict[str, Any] | None:
    """The settings of a run by dotted key; None where it has not begun."""
    folder = RunFolder(path)
    return _flat(folder.read_recipe().model_dump(mode="json")) if folder.recipe.exists() else None


def _by_recipe(found: Sequence[_Found]) -> list[_Found]:
    begun = [(one, one.recipe) for one in found if one.recipe is not None]
    values: dict[str, set[str]] = {}
    for one, recipe in begun:
        for key, value in recipe.items():
            if _counts(one, key):
                values.setdefault(key, set()).add(in_words(value))
    varied = [key for key, seen in values.items() if len(seen) > 1]
    named = [
        replace(one, setting=", ".join(f"{key}={in_words(recipe.get(key))}" for key in varied if _is_named(one, key)))
        for one, recipe in begun
    ]
    times = Counter((one.setting, one.method, one.seed) for one in named)
    return [
        one if times[one.setting, one.method, one.seed] == 1 else replace(one, setting=_with_folder(one))
        for one in named
    ]


def _with_folder(one: _Found) -> str:
    return ", ".join(filter(None, (f"folder={one.ablation.name}", one.setting)))


def _counts(one: _Found, key: str) -> bool:
    return key not in _NO_SETTINGS and not (one.method == BASELINE and key.startswith("branches."))


def _is_named(one: _Found, key: str) -> bool:
    """Whether a setting is worth a word: those of branches where they are not the usual ones."""
    assert one.recipe is not None
    return _counts(one, key) and (key not in _USUAL or one.recipe.get(key) != _USUAL[key])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{prefix}.{key}" if prefix else key).items()}


def _base(one: _Found, alone: bool) -> Path:
    return one.ablation if alone and one.path != one.ablation else one.ablation.parent


_USUAL = _flat(BranchesConfig().model_dump(mode="json"), "branches")
