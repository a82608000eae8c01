"""Diagnose what a recipe would train, or what a run has trained."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from shortback.diagnosis import diagnose
from shortback.errors import UserError
from shortback.health import GradientReport, Suggestion, settled_ratio
from shortback.recipes.build import build_data, build_schedule, first_batch, resolve
from shortback.recipes.build import build_loss as loss_of
from shortback.recipes.schema import Recipe
from shortback.runs.folder import RunFolder
from shortback.runs.train import build_network, place_branches
from shortback.schedules import Adaptive
from shortback.training import build_fabric
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
    recipe = folder.read_recipe()
    content = CheckpointFolder(folder.checkpoints).load()
    if content is None:
        raise UserError(f"{path} holds a run without a checkpoint yet: diagnose its recipe instead")
    state = content["state"]
    report, recipe = _diagnose(recipe, weights=content["net"], state=state)
    return Checkup(f"{_name(recipe)}, after {state['step']} steps", recipe, report, path)


def _diagnose(recipe: Recipe, *, weights: dict | None, state: dict) -> tuple[GradientReport, Recipe]:
    recipe, execution = resolve(recipe)
    splits = build_data(recipe.data, seed=recipe.seed)
    recipe = place_branches(recipe, splits)
    fabric = build_fabric(execution)
    torch.manual_seed(recipe.seed)
    _, net = build_network(recipe, splits)
    if weights is not None:
        net.load_state_dict(weights)
    net: nn.Module = net.to(fabric.device)
    execution.prepare(net)
    x, y = fabric.to_device(first_batch(recipe, splits, min(MAX_SAMPLES, recipe.train.batch_size)))
    schedule = build_schedule(recipe.method, recipe.branches)
    progress = state["step"] / (recipe.train.epochs * (len(splits.train) // recipe.train.batch_size))
    loss = loss_of(recipe.loss, recipe.branches)
    with fabric.autocast():
        if isinstance(schedule, Adaptive):
            at = functools.partial(schedule, progress)
            ratio = state["main_over_branches"] if weights else settled_ratio(net, x, y, loss=loss, coefficient_of=at)
            coefficient = at(ratio)
        else:
            coefficient = schedule(progress)
        report = diagnose(net, x, y, loss=loss, coefficient=coefficient)
    return _of_shortcut(report) if recipe.method == "shortcut" else report, recipe


def _of_shortcut(report: GradientReport) -> GradientReport:
    """The report with another coefficient as the setting that this method has for it."""

    def settings(suggestion: Suggestion) -> tuple[str, ...]:
        return tuple(each.replace("branches.start=", "branches.coefficient=") for each in suggestion.settings)

    suggestions = [dataclasses.replace(each, settings=settings(each)) for each in report.suggestions]
    return dataclasses.replace(report, suggestions=suggestions)


def _name(recipe: Recipe) -> str:
    return f"{recipe.model.name}, {recipe.model.num_steps} steps, {recipe.method}, {recipe.data.kind}"
