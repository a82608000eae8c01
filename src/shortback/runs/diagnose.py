"""Diagnose what a recipe would train, or what a run has trained."""

from __future__ import annotations

import dataclasses
import functools
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from torch import nn

from shortback.diagnosis import diagnose
from shortback.errors import UserError
from shortback.health import GradientReport, Suggestion, settled_ratio
from shortback.recipes.build import with_device_here
from shortback.recipes.schema import Recipe
from shortback.runs.folder import RunFolder
from shortback.runs.run import Run
from shortback.training.checkpoint import CheckpointFolder

MAX_SAMPLES = 64


class Checkup(NamedTuple):
    """A report, and what it is of: the network in a line, the recipe, and the run it was taken from, if any."""

    title: str
    recipe: Recipe
    report: GradientReport
    run: Path | None


def check_recipe_gradients(recipe: Recipe) -> Checkup:
    """Diagnose the network of a recipe as training would begin, on its first images (64 at most)."""
    report, recipe = _diagnose(recipe, weights=None, state={"step": 0})
    return Checkup(f"{_name(recipe)}, before training", recipe, report, None)


def check_run_gradients(path: Path) -> Checkup:
    """Diagnose the network of a run at its last checkpoint.

    Raises:
        ValueError: no run in `path`, or none that has come to a checkpoint.
    """
    folder = RunFolder(path)
    recipe = with_device_here(folder.read_recipe())
    content = CheckpointFolder(folder.checkpoints).load()
    if content is None:
        raise UserError(f"{path} holds a run without a checkpoint yet: diagnose its recipe instead")
    state = content["state"]
    report, recipe = _diagnose(recipe, weights=content["net"], state=state)
    return Checkup(f"{_name(recipe)}, after {state['step']} steps", recipe, report, path)


def _diagnose(recipe: Recipe, *, weights: dict | None, state: dict) -> tuple[GradientReport, Recipe]:
    run = Run.of(recipe)
    _, net = run.build_network()
    if weights is not None:
        net.load_state_dict(weights)
    net: nn.Module = net.to(run.fabric.device)
    run.execution.prepare(net)
    x, y = run.first_batch(min(MAX_SAMPLES, run.recipe.train.batch_size))
    loss, schedule = run.loss, run.schedule
    steps = run.recipe.train.epochs * max(1, run.steps_per_epoch)  # none of fewer images than a batch
    progress = min(1.0, state["step"] / steps)
    # Half precision without the scale that training has would lose small gradients; training looks in float32 as well.
    with nullcontext() if run.execution.precision == "fp16" else run.fabric.autocast():
        at = functools.partial(schedule, progress)
        ratio = state.get("main_over_branches", 1.0)
        if schedule.measures and weights is None:
            ratio = settled_ratio(net, x, y, loss=loss, coefficient_of=at)
        report = diagnose(net, x, y, loss=loss, coefficient=at(ratio))
    return _with_settings_of(recipe, report), run.recipe


def _with_settings_of(recipe: Recipe, report: GradientReport) -> GradientReport:
    """The report with another coefficient as the setting that a recipe has for it, or without if it has none."""
    suggestions = report.suggestions
    if recipe.method == "shortcut":
        suggestions = [dataclasses.replace(each, settings=_of_shortcut(each)) for each in suggestions]
    elif recipe.branches.schedule == "adaptive":  # where it is measured, and no number of the recipe's
        suggestions = [each for each in suggestions if not each.settings[0].startswith("branches.start=")]
    return dataclasses.replace(report, suggestions=suggestions)


def _of_shortcut(suggestion: Suggestion) -> tuple[str, ...]:
    return tuple(each.replace("branches.start=", "branches.coefficient=") for each in suggestion.settings)


def _name(recipe: Recipe) -> str:
    return f"{recipe.model.name}, {recipe.model.num_steps} steps, {recipe.method}, {recipe.data.kind}"
