"""One run from beginning to end: data, network, branches, training, stripping, test, and the folder it leaves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn

from shortback.processes import is_first
from shortback.recipes.build import (
    Splits,
    build_data,
    build_loader,
    build_loss,
    build_model,
    build_schedule,
    build_training,
    check_recipe,
    first_batch,
    resolve,
)
from shortback.recipes.schema import Recipe
from shortback.runs.environment import environment
from shortback.runs.folder import RunFolder, with_places
from shortback.shortcuts import ShortcutNetwork, attach, strip
from shortback.shortcuts.auto import NUM_SAMPLES, choose_places
from shortback.spiking import SpikingNetwork
from shortback.training import Execution, JsonLines, Logger, TensorBoard, Terminal, Trainer, build_fabric, evaluate
from shortback.training.checkpoint import writing
from shortback.training.peak_memory import forget_peak, peak_bytes

Say = Callable[[str], None]


def train_recipe(
    recipe: Recipe, out: Path, *, resume: bool = False, overwrite: bool = False, say: Say = print
) -> dict[str, Any]:
    """Train what a recipe says into a run folder; returns the summary that is written there.

    Args:
        recipe: one without `compare`.
        out: the run folder.
        resume: whether to go on with the run in `out`; one that is finished is left as it is.
        overwrite: whether to delete a run in `out` first.
        say: takes lines for a person.

    Raises:
        ValueError: a mistake in the recipe, the data or the folder, before any training.
        NonFiniteError, Interrupted, CheckpointError: see `Trainer.fit`.
    """
    recipe, execution = settle(recipe, out, resume=resume, overwrite=overwrite)
    folder = RunFolder(out)
    if resume and folder.is_finished:
        return folder.read_summary()
    splits = build_data(recipe.data, seed=recipe.seed)
    recipe = place_branches(recipe, splits)
    first_process = is_first()
    if first_process:
        folder.start(recipe, overwrite=overwrite)
    fabric = build_fabric(execution)
    made_with = environment()
    forget_peak(fabric.device)
    load = functools.partial(build_loader, recipe=recipe, source=splits.source, fabric=fabric)
    train = load(splits.train, training=True)
    validation = None if splits.validation is None else load(splits.validation, training=False)

    torch.manual_seed(recipe.seed)
    model, net = build_network(recipe, splits)
    loggers: list[Logger] = []
    if first_process:
        for line in _announcement(recipe, execution, splits, net):
            say(line)
        loggers = [JsonLines(folder.metrics), Terminal(recipe.method)]
        if recipe.train.tensorboard:
            loggers.append(TensorBoard(folder.tensorboard))
    trainer = Trainer(
        net,
        train=train,
        validation=validation,
        execution=execution,
        fabric=fabric,
        folder=folder.checkpoints,
        loggers=loggers,
        **build_training(recipe, net, steps_per_epoch=len(train)),
    )
    result = trainer.fit(resume=resume)

    if isinstance(net, ShortcutNetwork):
        strip(net)
    model.readout = "mean"
    tested = evaluate(model, load(splits.source.test, training=False).epoch(0), fabric=fabric)
    summary = {
        "test_accuracy": tested.accuracy,
        "test_images": tested.num_images,
        "method": recipe.method,
        "seed": recipe.seed,
        **result._asdict(),
        "peak_memory_mb": peak_bytes(fabric.device) / 2**20,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "stripped_is_bit_equal": _equals_unbranched(model, recipe, splits, fabric, execution),
        "execution": execution.describe(),
        **made_with,
    }
    if first_process:
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        with writing(folder.weights) as path:
            save_file(weights, path)
        folder.write_summary(summary)
    fabric.barrier()
    return summary


def settle(recipe: Recipe, out: Path, *, resume: bool, overwrite: bool) -> tuple[Recipe, Execution]:
    """The recipe as it will be trained into a run folder, and on what; nothing is written.

    Raises:
        ValueError: a mistake in the recipe or the folder.
    """
    check_recipe(recipe)
    recipe, execution = resolve(recipe)
    folder = RunFolder(out)
    if resume:
        recipe = folder.placed(recipe)
    if is_first():
        folder.check(recipe, resume=resume, overwrite=overwrite)
    return recipe, execution


def build_network(recipe: Recipe, splits: Splits) -> tuple[SpikingNetwork, nn.Module]:
    """The network of a recipe, and the same with the branches its method trains it with."""
    source = splits.source
    model = build_model(recipe.model, num_classes=len(source.classes), in_channels=source.in_channels)
    if recipe.loss.kind == "tet":
        model.readout = "steps"
    if recipe.method == "vanilla":
        return model, model
    sample = torch.zeros(2, source.in_channels, source.image_size, source.image_size)
    return model, attach(model, at=recipe.branches.at, sample=sample)


def place_branches(recipe: Recipe, splits: Splits) -> Recipe:
    """The recipe with names in the place of `branches.at: auto`, found by measuring the network it starts from."""
    if recipe.branches.at != "auto" or recipe.method == "vanilla":
        return recipe
    torch.manual_seed(recipe.seed)
    source = splits.source
    model = build_model(recipe.model, num_classes=len(source.classes), in_channels=source.in_channels)
    x, _ = first_batch(recipe, splits, NUM_SAMPLES)
    loss = build_loss(recipe.loss, recipe.branches)
    beginning = build_schedule(recipe.method, recipe.branches)(0.0)
    return with_places(recipe, choose_places(model, x, loss=loss, coefficient=beginning or 1.0))


def _announcement(recipe: Recipe, execution: Execution, splits: Splits, net: nn.Module) -> list[str]:
    """What is about to happen, and what was chosen for it."""
    model, data, train = recipe.model, recipe.data, recipe.train
    held_out = 0 if splits.validation is None else len(splits.validation)
    branches = f"{len(net.places)} branches" if isinstance(net, ShortcutNetwork) else "no branches"
    parameters = sum(p.numel() for p in net.parameters())
    return [
        f"{recipe.method}: {model.name}, {model.num_steps} steps, {branches}, {parameters:,} parameters in training",
        f"data: {data.kind}, {len(splits.train)} images to train on, {held_out} to validate, "
        f"{len(splits.source.test)} to test, {len(splits.source.classes)} classes",
        f"plan: {train.epochs} epochs, batches of {train.batch_size}, {recipe.optimizer.kind}, "
        f"learning rate {recipe.optimizer.lr}",
        f"on: {execution.describe()}",
    ]


@torch.no_grad()
def _equals_unbranched(
    model: SpikingNetwork, recipe: Recipe, splits: Splits, fabric: Fabric, execution: Execution
) -> bool:
    """Whether the network gives, bit for bit, the logits of one with the same weights that never had branches."""
    source = splits.source
    never = build_model(recipe.model, num_classes=len(source.classes), in_channels=source.in_channels)
    execution.prepare(never.to(fabric.device))  # in the memory format too, which decides how a convolution sums
    never.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(recipe.seed)
    x = torch.randn(8, source.in_channels, source.image_size, source.image_size, generator=generator)

    def logits(network: nn.Module) -> Tensor:
        with fabric.autocast():
            return network.eval()(x.to(fabric.device))

    same_keys = list(model.state_dict()) == list(never.state_dict())
    return same_keys and torch.equal(logits(model), logits(never))
