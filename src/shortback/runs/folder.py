"""The run folder: where a run keeps its recipe, its numbers and its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import yaml

from shortback.choices import LoggerKind
from shortback.errors import UserError
from shortback.files import write_text
from shortback.recipes.load import RecipeError, differences, parse_recipe
from shortback.recipes.schema import Recipe
from shortback.runs.summary import Summary


def with_places(recipe: Recipe, at: str | list[str]) -> Recipe:
    """The recipe with branches at other places."""
    return recipe.model_copy(update={"branches": recipe.branches.model_copy(update={"at": at})})


def runs_in(folder: Path) -> dict[str, Path]:
    """The run in a folder under no name, or those of a comparison, in folders of it, under theirs.

    Raises:
        ValueError: there is neither.
    """
    if not RunFolder(folder).recipe.exists() and folder.is_dir():
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and RunFolder(path).recipe.exists()]
        if inside:
            return {path.name: path for path in inside}
    RunFolder(folder).read_recipe()
    return {"": folder}


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, to be told as what cannot be written
        return False


class RunFolder:
    """Paths in the folder of one run.

    Attributes:
        recipe: `recipe.yaml`, resolved: nothing in it is left to be chosen.
        metrics: `metrics.jsonl`, a row a logging step and a row an epoch.
        summary: `summary.json`; it is there once the run is finished.
        checkpoints: folder of the checkpoints.
        weights: `model.safetensors`, the network without its branches.
        branches: `branches.safetensors`, the heads of the branches, where the recipe keeps them.
        loggers: folders of what `train.loggers` leave here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.checkpoints = path / "checkpoints"
        self.weights = path / "model.safetensors"
        self.branches = path / "branches.safetensors"
        self.loggers = [path / kind for kind in get_args(LoggerKind)]

    @property
    def is_finished(self) -> bool:
        return self.summary.exists()

    def check(self, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
        """See that a run of `recipe` can start here, or go on; nothing is written yet.

        Raises:
            ValueError: the folder holds something else, and what to do about it.
        """
        if _is_there(self.path) and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; name a folder")
        if not _is_there(self.path) or all(path.name == ".lock" for path in self.path.iterdir()):
            return
        if not self.recipe.exists():
            raise UserError(f"--out {self.path} is not empty and holds no run; name another folder")
        if overwrite:
            return
        if not resume:
            kind, go_on = ("a finished", "") if self.is_finished else ("an unfinished", "--resume to go on with it, ")
            raise UserError(
                f"--out {self.path} holds {kind} run: add {go_on}--overwrite to start again, or name another folder"
            )
        different = differences(recipe, self.read_recipe())
        if different:
            raise UserError(
                f"--resume: {self.path} holds a run of another recipe (asked for, there):\n  " + "\n  ".join(different)
            )

    def start(self, recipe: Recipe, *, overwrite: bool) -> None:
        """Write the recipe, having deleted what an earlier run wrote (and nothing else) where that is asked for."""
        if overwrite:
            for file in (self.recipe, self.metrics, self.summary, self.weights, self.branches):
                file.unlink(missing_ok=True)
            for folder in (self.checkpoints, *self.loggers):
                shutil.rmtree(folder, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.recipe, recipe.to_yaml())

    def placed(self, recipe: Recipe) -> Recipe:
        """The recipe with the places that the run here found, where it asks for `branches.at: auto`."""
        if recipe.branches.at != "auto" or not self.recipe.exists():
            return recipe
        return with_places(recipe, self.read_recipe().branches.at)

    def read_recipe(self) -> Recipe:
        """The recipe of the run.

        Raises:
            ValueError: there is no run here.
        """
        if not self.recipe.exists():
            raise UserError(f"{self.path} holds no run: there is no {self.recipe.name} in it")
        tree = yaml.safe_load(self.recipe.read_text())
        if not isinstance(tree, dict):
            raise RecipeError(f"{self.recipe} is not a recipe")
        return parse_recipe(tree, name=str(self.recipe))

    def read_summary(self) -> Summary:
        """What `write_summary` wrote."""
        return json.loads(self.summary.read_text())

    def write_summary(self, summary: Summary) -> None:
        """Say that the run is finished, and how it ended."""
        write_text(self.summary, json.dumps(summary, indent=2) + "\n")
