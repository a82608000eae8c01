"""Train a recipe from start to end: data, network, branches, training, stripping, testing, and the run folder."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from shortback.files import check_folder
from shortback.processes import is_first
from shortback.recipes.build import build_training, check_recipe, resolve
from shortback.recipes.schema import Recipe
from shortback.runs.branches import save_branches
from shortback.runs.environment import environment
from shortback.runs.folder import RunFolder
from shortback.runs.run import Run
from shortback.runs.summary import Summary
from shortback.runs.terminal import RunTerminal, how_resized
from shortback.shortcuts import ShortcutNetwork, strip
from shortback.spiking import SpikingNetwork
from shortback.training import FitResult, JsonLines, Logger, Trainer, evaluate, make_tracker
from shortback.training.alone import locked_folder
from shortback.training.checkpoint import save_weights
from shortback.training.peak_memory import forget_peak, peak_bytes
from shortback.training.trackers import check_tracker
from shortback.words import quantity

Say = Callable[[str], None]

_COMPILING = (
    "the first step compiles kernels, which takes seconds to minutes where they are not in PyTorch's cache, and counts "
    "in the first images/s"
)


def train_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = print,
    name: str | None = None,
) -> Summary:
    """Train a recipe into a run folder, and return the summary that is written there.

    Args:
        recipe: a recipe without `compare`.
        out: the run folder.
        resume: whether to go on with the run in `out`; a finished run is left as it is.
        overwrite: whether to delete a run in `out` first.
        say: called with lines for the user.
        name: printed in front of every line; the method if not given.

    Raises:
        ValueError: a mistake in the recipe, the data or the folder, found before any training; or another process is
            training in `out`.
        NonFiniteError, Interrupted, CheckpointError: see `Trainer.fit`.
    """
    recipe = check(recipe, out, resume=resume, overwrite=overwrite)
    with locked_folder(out):
        if is_first():  # again: another process may have trained here before the lock was taken
            RunFolder(out).check(recipe, resume=resume, overwrite=overwrite)
        return _train_alone(recipe, out, resume=resume, overwrite=overwrite, say=say, name=name or recipe.method)


def _train_alone(recipe: Recipe, out: Path, *, resume: bool, overwrite: bool, say: Say, name: str) -> Summary:
    folder = RunFolder(out)
    if resume and folder.is_finished and folder.weights.exists():
        return folder.read_summary()
    run = Run.of(recipe, folder=folder)
    if is_first():
        folder.start(run.recipe, overwrite=overwrite)
    made_with = environment()
    forget_peak(run.fabric.device)
    model, net = run.build_network()
    if is_first():
        for line in _announcement(run, net, name=name):
            say(line)
        if run.execution.compile != "off":
            _say_once(say, _COMPILING)
    result = _train(run, net, folder, resume=resume, name=name)
    if isinstance(net, ShortcutNetwork):
        if run.recipe.branches.keep and is_first():
            save_branches(net, folder.branches)
        strip(net)
    model.readout = "mean"
    run.execution.prepare(model)  # the trainer has undone its own preparation
    tested = evaluate(model, run.loader(run.splits.source.test, training=False).epoch(0), fabric=run.fabric)
    assert tested.accuracy is not None  # a recipe classifies
    summary: Summary = {
        "test_accuracy": tested.accuracy,
        "test_images": tested.num_images,
        "train_images": len(run.splits.train),
        "method": run.recipe.method,
        "seed": run.recipe.seed,
        "epochs": result.epochs,
        "steps": result.steps,
        "train_seconds": result.train_seconds,
        "images_per_second": result.images_per_second,
        "best_val_accuracy": result.best_val_accuracy,
        "peak_memory_mb": peak_bytes(run.fabric.device) / 2**20,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "classes": list(run.splits.source.classes),
        "stripped_is_bit_equal": _equals_unbranched(run, model),
        "split": run.splits.source.split,
        "execution": run.execution.describe(),
        **made_with,
    }
    if is_first():
        save_weights(folder.weights, model.state_dict())
        folder.write_summary(summary)
    run.fabric.barrier()
    return summary


def check(recipe: Recipe, out: Path, *, resume: bool, overwrite: bool) -> Recipe:
    """Check, before anything is loaded, that a recipe can be trained into a run folder, and create the folder.

    Returns:
        The resolved recipe; if a run is resumed, with the places that it found for `branches.at: auto`.

    Raises:
        ValueError: a mistake in the recipe or the folder.
    """
    check_recipe(recipe)
    for kind in recipe.train.loggers:
        check_tracker(kind)
    recipe, _ = resolve(recipe)
    folder = RunFolder(out)
    if resume:
        recipe = folder.placed(recipe)
    if is_first():
        folder.check(recipe, resume=resume, overwrite=overwrite)
        check_folder(out, what="--out")
    return recipe


def _train(run: Run, net: nn.Module, folder: RunFolder, *, resume: bool, name: str) -> FitResult:
    """Train, writing checkpoints and metrics to the folder."""
    train = run.loader(run.splits.train, training=True)
    validation = None if run.splits.validation is None else run.loader(run.splits.validation, training=False)
    parts = build_training(run.recipe, net, steps_per_epoch=len(train))
    loggers: list[Logger] = []
    if is_first():
        has_branches = run.recipe.method != "vanilla"
        loggers = [JsonLines(folder.metrics), RunTerminal(name, folder=folder.path, has_branches=has_branches)]
        settings = run.recipe.model_dump(mode="json", exclude_none=True)
        loggers += [make_tracker(kind, folder.path, settings=settings) for kind in run.recipe.train.loggers]
    trainer = Trainer(
        net,
        train=train,
        validation=validation,
        loss=parts.loss,
        schedule=parts.schedule,
        optimizer=parts.optimizer,
        learning_rate=parts.learning_rate,
        plan=parts.plan,
        execution=run.execution,
        fabric=run.fabric,
        folder=folder.checkpoints,
        loggers=loggers,
        identity=_identity_of_data(run),
    )
    return trainer.fit(resume=resume)


def _identity_of_data(run: Run) -> dict[str, object]:
    """What distinguishes the data of one run from those of another: classes, and the labels in their order."""
    labels = hashlib.sha256(run.splits.train.labels.cpu().numpy().tobytes()).hexdigest()
    return {"classes": list(run.splits.source.classes), "training labels": labels[:12]}


def _announcement(run: Run, net: nn.Module, *, name: str) -> list[str]:
    """Lines that describe the training about to start, and the choices made for it."""
    recipe, splits = run.recipe, run.splits
    model, data, train = recipe.model, recipe.data, recipe.train
    held_out = 0 if splits.validation is None else len(splits.validation)
    branches = quantity(len(net.places), "branch", "branches") if isinstance(net, ShortcutNetwork) else "no branches"
    parameters = sum(p.numel() for p in net.parameters())
    samples = "images" if splits.source.num_steps is None else "recordings"
    resized = how_resized(splits.source, splits.train, resized_crop=data.augment.resized_crop)
    rate = None if model.firing_rate is None else f"{100 * model.firing_rate:g}%"
    return [
        f"{name}: {model.name}, {quantity(model.num_steps, 'step')}, {branches}, {parameters:,} parameters in training",
        f"data: {data.kind}, {len(splits.train)} {samples} to train on, {held_out} to validate, "
        f"{len(splits.source.test)} to test, {quantity(len(splits.source.classes), 'class', 'classes')}",
        *([f"data: {resized}"] if resized else []),
        *([f"weights: scaled, where needed, to a firing rate of {rate}"] if rate else []),
        f"plan: {quantity(train.epochs, 'epoch')}, batches of {train.batch_size}, {recipe.optimizer.kind}, "
        f"learning rate {recipe.optimizer.lr}",
        f"on: {run.execution.describe()}",
    ]


@functools.cache
def _say_once(say: Say, line: str) -> None:
    """Say a line once per process: the kernels compiled for the first training serve the next ones too."""
    say(line)


@torch.no_grad()
def _equals_unbranched(run: Run, model: SpikingNetwork) -> bool:
    """Whether the network gives, bit for bit, the logits of one with the same weights that never had branches."""
    fabric = run.fabric
    never = run.build_model()
    run.execution.prepare(never.to(fabric.device))  # the memory format decides in which order a convolution sums
    never.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(run.recipe.seed)
    x = torch.randn(run.splits.source.batch_shape(8), generator=generator)

    def logits(network: nn.Module) -> Tensor:
        with fabric.autocast():
            return network.eval()(x.to(fabric.device))

    same_keys = list(model.state_dict()) == list(never.state_dict())
    return same_keys and torch.equal(logits(model), logits(never))
