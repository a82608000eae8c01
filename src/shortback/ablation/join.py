"""Join the runs of several ablations, naming each by the settings in which the recipes differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from shortback.ablation.grid import Cell, Settings, in_words
from shortback.ablation.run import CellRun, read_run
from shortback.choices import Combine, EventKind
from shortback.errors import UserError
from shortback.files import read_json
from shortback.recipes.build import resolve
from shortback.recipes.data_settings import FramesConfig
from shortback.recipes.load import WITHOUT_EFFECT, flatten
from shortback.recipes.methods import BASELINE, method_uses
from shortback.recipes.training_settings import BranchesConfig
from shortback.runs.folder import RunFolder, runs_in

CELLS_FILE = "cells.json"

_NO_SETTINGS = {"method", "seed", "compare", *WITHOUT_EFFECT}  # identify a run, or do not affect its weights

_DEPENDENT_DEFAULTS = {  # settings whose default depends on the key
    "branches.combine": ("branches.start", "branches.coefficient"),
    "branches.start": ("branches.coefficient",),
}


@dataclass(frozen=True)
class _Found:
    """A run folder, and what its ablation knows about it."""

    ablation: Path
    path: Path
    settings: Settings
    method: str
    seed: int


def join(folders: Sequence[Path]) -> list[CellRun]:
    """Read the runs of ablations, comparisons or single runs; those of one ablation are named by what it varies.

    Runs of several folders are named by every setting that differs between their recipes, except branch settings in
    vanilla runs, and branch settings with their usual values. If two runs of one seed still have the same name, the
    runs of both ablations are named by folder too, and compared within it.

    Raises:
        ValueError: a folder holds no run, or a file in it is damaged.
    """
    folders = [run for folder in folders for run in ([folder] if read_cells(folder) else runs_in(folder).values())]
    found = list({one.path.resolve(): one for folder in folders for one in _found(folder)}.values())
    if len(folders) > 1:
        _check_same_classes(found)
        found = _by_folder(_by_recipe(found))
    return [read_run(one.settings, one.method, one.seed, one.path, within=_base(one, folders)) for one in found]


def _check_same_classes(found: Sequence[_Found]) -> None:
    """Refuse to compare runs on data with other classes: their recipes may differ only in where the data lie."""
    first: tuple[_Found, list[str]] | None = None
    for one in found:
        folder = RunFolder(one.path)
        classes = folder.read_summary().get("classes") if folder.is_finished else None
        if classes is None:
            continue
        first = first or (one, classes)
        if classes != first[1]:
            raise UserError(
                f"{first[0].path} and {one.path} were trained on different classes ({', '.join(first[1][:3])} ... and "
                f"{', '.join(classes[:3])} ...): report them apart"
            )


def read_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """All cells requested so far of the ablation in a folder, by their folders within it; empty without one."""
    file = folder / CELLS_FILE
    instead = "restore it, or delete it: the same ablation writes it again and repeats no finished run"
    cells = read_json(file, instead=instead) if file.exists() else {}
    if not all(isinstance(cell, dict) and {"settings", "method", "seed"} <= cell.keys() for cell in cells.values()):
        raise UserError(f"{file} is damaged (its cells lack settings, method or seed): {instead}")
    return cells


def check_comparable(cells: Sequence[Cell], out: Path) -> None:
    """Check that cells can be compared with the earlier cells of the ablation in a folder.

    Raises:
        ValueError: the folder is of another recipe or varies other settings; the message lists what differs.
    """
    known = read_cells(out)
    own = {str(cell.folder) for cell in cells}
    kinds = {(cell.settings, cell.method): cell for cell in cells}.values()
    asked = [(cell, flatten(resolve(cell.recipe)[0].model_dump(mode="json"))) for cell in kinds]
    begun = [path for path in known if RunFolder(out / path).has_begun]
    axes = {key for cell in cells for key, _ in cell.settings}  # a cell has only those that affect it
    their_axes = {key for path in begun for key in known[path]["settings"]}
    for path in begun:
        if path in own:
            continue
        theirs = flatten(RunFolder(out / path).read_recipe().model_dump(mode="json"))
        for cell, ours in asked:
            if any(method_uses(BASELINE, key) for key in axes ^ their_axes):
                raise UserError(
                    f"--out {out} holds an ablation that varies {', '.join(sorted(their_axes)) or 'nothing'}, and this "
                    f"one {', '.join(sorted(axes)) or 'nothing'}: name another folder; `shortback report` joins them"
                )
            varied = axes | their_axes
            varied |= {
                key
                for axis in varied
                if ours.get(axis) != theirs.get(axis)
                for key in _DEPENDENT_DEFAULTS.get(axis, ())
            }
            different = [
                f"{key}: {ours.get(key)!r}, {theirs.get(key)!r}"
                for key in sorted({*ours, *theirs})
                if ours.get(key) not in (theirs.get(key), "auto")
                and _affects(cell.method, key, ours)
                and _affects(theirs["method"], key, theirs)
                and not any(f"{key}.".startswith(f"{axis}.") for axis in varied)
            ]
            if different:
                raise UserError(
                    f"--out {out} holds an ablation of another recipe (requested value, value in {path}):\n  "
                    + "\n  ".join(different)
                )


def _found(folder: Path) -> list[_Found]:
    cells = read_cells(folder)
    if not cells:
        recipe = RunFolder(folder).read_recipe()  # raises if there is none
        return [_Found(folder.parent, folder, (), recipe.method, recipe.seed)]
    return [
        _Found(folder, folder / path, tuple(cell["settings"].items()), cell["method"], cell["seed"])
        for path, cell in cells.items()
    ]


def _by_recipe(found: Sequence[_Found]) -> list[_Found]:
    """Name each run by the settings that differ between recipes; one that has not begun keeps its ablation's."""
    recipes = {one: _recipe(one.path) for one in found if _has_recipe(one)}
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    values: dict[str, set[str]] = defaultdict(set)
    for one, recipe in recipes.items():
        for key in keys:  # the keys of a null section are missing
            if _affects(one.method, key, recipe):
                values[key].add(in_words(recipe.get(key)))
    varied = [key for key, seen in values.items() if len(seen) > 1]

    def settings(one: _Found, recipe: dict[str, Any]) -> Settings:
        named = (key for key in varied if _affects(one.method, key, recipe) and not _is_usual(key, recipe))
        return tuple((key, in_words(recipe.get(key))) for key in named)

    return [replace(one, settings=settings(one, recipes[one])) if one in recipes else one for one in found]


def _recipe(path: Path) -> dict[str, Any]:
    """The settings of a run by their keys, including the default frame settings of event data."""
    recipe = RunFolder(path).read_recipe()
    tree = recipe.model_dump(mode="json")
    if recipe.data.kind in get_args(EventKind):
        tree["data"]["frames"] = (recipe.data.frames or FramesConfig()).model_dump(mode="json")
    return flatten(tree)


def _by_folder(found: Sequence[_Found]) -> Sequence[_Found]:
    """If runs share all settings, add the names of their ablations' folders, or else of their own, as a setting."""
    for folder in (lambda one: one.ablation, lambda one: one.path):
        same: dict[tuple[Settings, str, int], list[_Found]] = defaultdict(list)
        for one in found:
            same[one.settings, one.method, one.seed].append(one)
        sets = [{folder(one) for one in ones} for ones in same.values()]
        names = _short_names(set().union(*(folders for folders in sets if len(folders) > 1)))
        found = [
            replace(one, settings=(("folder", names[folder(one)]), *one.settings)) if folder(one) in names else one
            for one in found
        ]
    return found


def _short_names(paths: set[Path]) -> dict[Path, str]:
    """The last parts of each path, as many as it takes to tell the paths apart."""
    parts = {path: path.resolve().parts for path in paths}
    for count in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {path: "/".join(part[-count:]) for path, part in parts.items()}
        if len(set(names.values())) == len(paths):
            return names
    return {}


def _has_recipe(one: _Found) -> bool:
    return RunFolder(one.path).recipe.exists()


def _affects(method: str, key: str, recipe: Mapping[str, Any]) -> bool:
    """Whether a setting affects the weights of a run, and does not merely identify it.

    Args:
        method: the method of the run.
        key: the setting.
        recipe: the settings of the run by their keys.
    """
    if key == "health.every":  # takes the measurements that an adaptive coefficient follows
        return recipe.get("branches.schedule") == "adaptive" and method_uses(method, "branches.schedule")
    return key not in _NO_SETTINGS and method_uses(method, key)


def _is_usual(key: str, recipe: dict[str, Any]) -> bool:
    """Whether a setting of branches has its usual value, which need not be named."""
    usual = _USUAL[recipe["branches.combine"]]
    return key in usual and recipe.get(key) == usual[key]


def _base(one: _Found, folders: Sequence[Path]) -> Path:
    return one.ablation if len(folders) == 1 else one.ablation.parent


_USUAL = {
    combine: flatten({"branches": BranchesConfig(combine=combine).model_dump(mode="json") | {"combine": "logits"}})
    for combine in get_args(Combine)
}
