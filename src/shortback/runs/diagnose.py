"""Diagnose the network that a recipe would train, or that a run has trained."""

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
    """A gradient report and its subject: a title, the recipe, and the folder of the run, if any."""

    title: str
    recipe: Recipe
    report: GradientReport
    run: Path | None


def check_recipe_gradients(recipe: Recipe) -> Checkup:
    """Diagnose the network of a recipe as it would begin training, on its first images (at most 64)."""
    report, recipe = _diagnose(recipe, weights=None, state={"step": 0})
    return Checkup(f"{_name(recipe)}, before training", recipe, report, None)


def check_run_gradients(path: Path) -> Checkup:
    """Diagnose the network of a run at its last checkpoint.

    Raises:
        ValueError: there is no run in `path`, or it has no checkpoint yet.
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
    steps = run.recipe.train.epochs * max(1, run.steps_per_epoch)  # 0 if there are fewer images than in a batch
    progress = min(1.0, state["step"] / steps)
    # fp16 without the loss scaling of training would lose small gradients; training measures in float32 as well.
    with nullcontext() if run.execution.precision == "fp16" else run.fabric.autocast():
        at = functools.partial(schedule, progress)
        ratio = state.get("main_over_branches", 1.0)
        if schedule.measures and weights is None:
            ratio = settled_ratio(net, x, y, loss=loss, coefficient_of=at)
        report = diagnose(net, x, y, loss=loss, coefficient=at(ratio))
    return _with_settings_of(recipe, report), run.recipe


def _with_settings_of(recipe: Recipe, report: GradientReport) -> GradientReport:
    """The report with suggested coefficients named by the recipe's own setting, or left out where it has none."""
    suggestions = report.suggestions
    if recipe.method == "shortcut":
        suggestions = [dataclasses.replace(each, settings=_of_shortcut(each)) for each in suggestions]
    elif recipe.branches.schedule == "adaptive":  # the coefficient is measured, not set by the recipe
        suggestions = [each for each in suggestions if not each.settings[0].startswith("branches.start=")]
    return dataclasses.replace(report, suggestions=suggestions)


def _of_shortcut(suggestion: Suggestion) -> tuple[str, ...]:
    return tuple(each.replace("branches.start=", "branches.coefficient=") for each in suggestion.settings)


def _name(recipe: Recipe) -> str:
    return f"{recipe.model.name}, {recipe.model.num_steps} steps, {recipe.method}, {recipe.data.kind}"
