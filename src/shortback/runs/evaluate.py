"""Test what a run has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from shortback.errors import UserError
from shortback.inspection import firing_rates
from shortback.recipes.build import Splits, build_data, build_loader, build_model, resolve
from shortback.recipes.schema import Recipe
from shortback.runs.folder import RunFolder
from shortback.spiking import SpikingNetwork
from shortback.training import build_fabric, evaluate


def load_run(path: Path) -> tuple[Recipe, SpikingNetwork, Splits]:
    """The recipe, the trained network and the data of a finished run.

    Raises:
        ValueError: no finished run in `path`.
    """
    folder = RunFolder(path)
    recipe = folder.read_recipe()
    if not folder.weights.exists():
        raise UserError(f"{path} holds a run that is not finished: there is no {folder.weights.name} in it yet")
    splits = build_data(recipe.data, seed=recipe.seed)
    model = build_model(recipe.model, num_classes=len(splits.source.classes), in_channels=splits.source.in_channels)
    model.load_state_dict(load_file(folder.weights))
    return recipe, model, splits


def evaluate_run(path: Path) -> dict[str, Any]:
    """Test accuracy of a run, the same by number of steps, and the firing rate of every layer of neurons.

    Raises:
        ValueError: no finished run in `path`.
    """
    recipe, model, splits = load_run(path)
    recipe, execution = resolve(recipe)
    fabric = build_fabric(execution)
    model.to(fabric.device)
    execution.prepare(model)
    test = build_loader(splits.source.test, recipe, splits.source, training=False, fabric=fabric)
    by_steps = {}
    for num_steps in range(1, recipe.model.num_steps + 1):
        model.num_steps = num_steps
        by_steps[num_steps] = evaluate(model, test.epoch(0), fabric=fabric)
    with fabric.autocast():
        rates = firing_rates(model, (x.to(fabric.device) for x, _ in test.epoch(0)))
    tested = by_steps[recipe.model.num_steps]
    return {
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "test_images": tested.num_images,
        "accuracy_by_num_steps": {steps: result.accuracy for steps, result in by_steps.items()},
        "firing_rate_by_layer": rates,
    }
