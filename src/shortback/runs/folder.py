"""The folder in which a run keeps its recipe, metrics and weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from safetensors.torch import load_file
from torch import Tensor

from shortback.choices import LoggerKind
from shortback.errors import UserError
from shortback.files import is_temporary, write_text
from shortback.recipes.load import WITHOUT_EFFECT, differences, parse_recipe
from shortback.recipes.schema import Recipe
from shortback.recipes.yaml_text import read_keys, text_of
from shortback.runs.summary import Summary


def with_places(recipe: Recipe, at: str | list[str]) -> Recipe:
    """The recipe with branches at other places."""
    return recipe.model_copy(update={"branches": recipe.branches.model_copy(update={"at": at})})


def runs_in(folder: Path) -> dict[str, Path]:
    """The runs in a folder by name: a single run under an empty name, a comparison's runs under their folders'.

    Raises:
        ValueError: there is no run.
    """
    if not RunFolder(folder).recipe.exists() and (inside := _runs_inside(folder)):
        return {path.name: path for path in inside}
    RunFolder(folder).read_recipe()
    return {"": folder}


def _runs_inside(folder: Path) -> list[Path]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_dir() and RunFolder(path).recipe.exists()]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long: writing to it fails later, with a better message
        return False


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        return any(not is_temporary(inside) for inside in path.iterdir())
    return path.exists() and path.stat().st_size > 0


def _damaged(file: Path, why: object, *, delete: str = "it") -> UserError:
    return UserError(f"{file} is damaged ({why}): delete {delete}, and `shortback train` with --resume writes it again")


class RunFolder:
    """Paths in the folder of one run.

    Attributes:
        recipe: `recipe.yaml`, with device and precision chosen, paths absolute, and the places found for
            `branches.at: auto`.
        metrics: `metrics.jsonl`, with a row for each logging step and each epoch.
        summary: `summary.json`, which exists once the run is finished.
        checkpoints: folder of the checkpoints.
        weights: `model.safetensors`, the network without its branches.
        branches: `branches.safetensors`, the heads of the branches, if the recipe keeps them.
        loggers: folders that the loggers of `train.loggers` may write.
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
        self._lock = path / ".lock"

    @property
    def is_finished(self) -> bool:
        return self.summary.exists()

    @property
    def has_begun(self) -> bool:
        """Whether a run has left more here than its recipe; a run that was refused before its first step has not.

        A recipe without the lock of a run beside it was put there by someone else and must not be replaced, so it
        counts as begun.
        """
        if not self.recipe.exists():
            return False
        left = (self.metrics, self.summary, self.weights, self.branches, self.checkpoints, *self.loggers)
        return not self._lock.exists() or any(_holds_something(path) for path in left)

    def check(self, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
        """Check that a run of `recipe` can start or go on here; nothing is written.

        Raises:
            ValueError: the folder holds something else; the message says what to do.
        """
        if _is_there(self.path) and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; name a folder")
        if not _is_there(self.path) or all(path == self._lock or is_temporary(path) for path in self.path.iterdir()):
            return
        if not self.recipe.exists():
            runs = sorted(path.parent.name for path in self.path.glob(f"*/{self.recipe.name}"))
            holds = f"holds runs of a comparison ({', '.join(runs)})" if runs else "is not empty and holds no run"
            raise UserError(f"--out {self.path} {holds}; name another folder")
        if overwrite or not self.has_begun:
            return
        if not resume:
            kind, go_on = ("a finished", "") if self.is_finished else ("an unfinished", "--resume to go on with it, ")
            raise UserError(
                f"--out {self.path} holds {kind} run: add {go_on}--overwrite to start again, or name another folder"
            )
        adapts = recipe.branches.schedule == "adaptive"  # follows measurements, which are taken every health.every
        ignoring = WITHOUT_EFFECT - {"health.every"} if adapts else WITHOUT_EFFECT
        different = differences(recipe, self.read_recipe(), ignoring=ignoring)
        if different:
            raise UserError(
                f"--resume: {self.path} holds a run of another recipe (asked for, there):\n  "
                + "\n  ".join(different)
                + f"\n{self._instead(different)}"
            )

    def _instead(self, different: Sequence[str]) -> str:
        """Advice for a run that is asked to go on with another recipe."""
        why = ""
        if any(line.startswith("train.epochs:") for line in different):
            why = (
                "The learning rate and the coefficient depend on the number of epochs, so that a run cannot be made "
                "longer or shorter. "
            )
        weights = ""
        if self.weights.exists():
            weights = f"; in Python, sb.load_weights(net, {str(self.weights)!r}) and fit() start from these weights"
        return f"{why}To train by this recipe, name another folder with --out{weights}"

    def start(self, recipe: Recipe, *, overwrite: bool) -> None:
        """Write the recipe; with `overwrite`, first delete what an earlier run wrote, and nothing else.

        The earlier recipe is replaced last, so that the folder still holds a run if this process is killed before that.
        Temporary files of a killed run are deleted in any case.
        """
        if overwrite:
            for file in (self.metrics, self.summary, self.weights, self.branches):
                file.unlink(missing_ok=True)
            for folder in (self.checkpoints, *self.loggers):
                shutil.rmtree(folder, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        for path in (*self.path.glob(".*"), *self.checkpoints.glob(".*")):
            if is_temporary(path):
                path.unlink(missing_ok=True)
        write_text(self.recipe, recipe.to_yaml())

    def placed(self, recipe: Recipe) -> Recipe:
        """The recipe, with `branches.at: auto` replaced by the places that the run in this folder found."""
        if recipe.branches.at != "auto" or not self.has_begun:
            return recipe
        return with_places(recipe, self.read_recipe().branches.at)

    def read_recipe(self) -> Recipe:
        """The recipe of the run.

        Raises:
            ValueError: there is no run here, or its file is not a valid recipe.
        """
        if not self.recipe.exists():
            if inside := _runs_inside(self.path):
                raise UserError(f"{self.path} holds several runs: name one of {', '.join(map(str, inside))}")
            raise UserError(f"{self.path} holds no run: there is no {self.recipe.name} in it")
        tree = read_keys(text_of(self.recipe), name=str(self.recipe))
        return parse_recipe(tree, name=str(self.recipe))

    def read_summary(self) -> Summary:
        """Read the summary of the finished run.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            summary = json.loads(self.summary.read_text())
        except ValueError as error:
            raise _damaged(self.summary, error) from error
        if not isinstance(summary, dict):
            raise _damaged(self.summary, "not a JSON object")
        if not isinstance(summary.get("test_accuracy"), float | int):
            raise _damaged(self.summary, "it has no test accuracy")
        return cast(Summary, summary)

    def read_weights(self) -> dict[str, Tensor]:
        """The weights of a finished run, without branches.

        Raises:
            ValueError: the file is missing or damaged.
        """
        if not self.weights.exists():
            raise UserError(f"{self.path} holds no {self.weights.name}")
        try:
            return load_file(self.weights)
        except Exception as error:  # safetensors raises an exception that derives from Exception directly
            raise _damaged(self.weights, error, delete=f"it and {self.summary.name}") from error

    def write_summary(self, summary: Summary) -> None:
        """Write the summary, which marks the run as finished."""
        write_text(self.summary, json.dumps(summary, indent=2) + "\n")
