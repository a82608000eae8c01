"""Train any network from Python: what `shortback train` does, without a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from shortback.choices import nearest, usual_start
from shortback.errors import UserError
from shortback.inspection.trunk import trunk_of
from shortback.losses import Loss, ShortcutLoss
from shortback.schedules import Linear, Schedule, as_schedule
from shortback.shortcuts import ShortcutNetwork
from shortback.training.alone import locked_folder
from shortback.training.batches import Batches, SeededBatches
from shortback.training.checkpoint import CheckpointFolder
from shortback.training.engine import Trainer
from shortback.training.execution import Execution, build_fabric, choice_in_words, usual_execution
from shortback.training.loggers import JsonLines, Logger, Terminal
from shortback.training.optim import WarmupCosine, build_optimizer, check_rates
from shortback.training.outcome import FitResult
from shortback.training.plan import Plan
from shortback.training.shares import ShareSampler, sampler_of, share_of

# Names that other libraries use, and what to write instead.
_FOREIGN_NAMES = {
    "early_stopping": "patience=, in epochs without a better validation",
    "early_stopping_patience": "patience=",
    "grad_clip": "clip_norm=",
    "gradient_clip_val": "clip_norm=",
    "max_grad_norm": "clip_norm=",
    "max_epochs": "epochs=",
    "num_epochs": "epochs=",
    "scheduler": "learning_rate=, a function of the optimizer step",
    "lr_scheduler": "learning_rate=, a function of the optimizer step",
    "accumulate_grad_batches": "accumulate=",
    "gradient_accumulation_steps": "accumulate=",
    "batch_size": "set in the loader, DataLoader(dataset, batch_size=...)",
    "precision": "part of execution=, such as choose_execution(precision='fp32')",
    "device": "part of execution=, such as choose_execution(device='cpu')",
    "coefficient": "schedule=, a number or a function of progress",
    "criterion": "loss=",
    "val": "validation=",
    "val_loader": "validation=",
}

Loader = Batches | Iterable[tuple[Tensor, Tensor]]


def fit(
    net: nn.Module,
    train: Loader,
    *,
    epochs: int,
    folder: str | Path,
    validation: Loader | None = None,
    schedule: Schedule | Callable[[float], float] | float | None = None,
    loss: ShortcutLoss | Loss | None = None,
    lr: float = 0.1,
    optimizer: torch.optim.Optimizer | None = None,
    learning_rate: Callable[[int], float] | None = None,
    execution: Execution | None = None,
    fabric: Fabric | None = None,
    loggers: Sequence[Logger] | None = None,
    title: str | None = None,
    seed: int = 0,
    resume: bool = False,
    **plan: Any,
) -> FitResult:
    """Train a network, with or without branches, and leave its best weights in it.

    The neuron states of SpikingJelly, snnTorch and sinabs are reset before every batch. `strip` the network afterwards.

    Args:
        net: what `attach` returned, or a network without branches that returns `[N, K]`, or `[N, K]` for each step.
        train: pairs of inputs and classes `[N]` (or probabilities `[N, K]`): a `DataLoader`, a
            `shortback.data.BatchLoader`, or anything that has a length and can be iterated over once per epoch.
        epochs: number of epochs of the whole training.
        folder: where checkpoints and `metrics.jsonl` are written.
        validation: the split that selects the best weights; without it, the last weights are kept.
        schedule: the balance coefficient, as a function of progress or a constant. By default it falls linearly to 0,
            from 0.25 if the loss adds logits (eq. 10 of the paper) and from 1 if it adds losses. Without branches it
            is 0.
        loss: defaults to `ShortcutLoss()`, which adds logits; a loss of a single output, such as `TET()`, becomes the
            `main` of one.
        lr: peak learning rate of the default optimizer (SGD with momentum 0.9 and weight decay 1e-4) and of its
            default schedule, a cosine to 0.
        optimizer: an optimizer over the parameters of `net`, instead of the default.
        learning_rate: a function of the optimizer step, from 0. With your own `optimizer`, it defaults to a cosine from
            the optimizer's largest `lr` to 0. Parameter groups with different `lr` keep their ratios.
        execution: device, precision, memory format and compilation, from `choose_execution`. If neither this nor
            `fabric` is given, the choice made is printed.
        fabric: a launched Fabric; by default, one for this process, or for all processes that `torchrun` started.
        loggers: default to `metrics.jsonl` and the terminal.
        title: printed in front of every line in the terminal; defaults to the network's class name.
        seed: seed of everything that a `DataLoader` draws, such as the order of its samples.
        resume: whether to continue, bit for bit, from the newest checkpoint in `folder`, if there is one.
        plan: further fields of `Plan`: `accumulate`, `clip_norm`, `ema`, `log_every`, `checkpoint_every`,
            `watch_every` ...

    Raises:
        ValueError: an invalid learning rate; a folder that holds a run, or in which another process trains; a loader
            without a length; an optimizer that lacks the heads of the branches, or holds parameters of another
            network; a network that contains one with branches but does not return their outputs.
        NonFiniteError, Interrupted, CheckpointError: see `Trainer.fit`.
    """
    folder = Path(folder)
    metrics = folder / "metrics.jsonl"
    of_a_run = metrics, CheckpointFolder(folder / "checkpoints").last
    if not resume and any(path.exists() and path.stat().st_size for path in of_a_run):
        raise UserError(f"{folder} holds a run: use another folder, or resume=True to continue it")
    known = {field.name for field in dataclasses.fields(Plan)}
    if unknown := sorted(set(plan) - known):
        here = _FOREIGN_NAMES.get(unknown[0])
        hint = f"here it is {here}" if here else f"the nearest are {nearest(unknown[0], known)}"
        raise UserError(f"fit() takes no {unknown[0]}; {hint}")
    loss = ShortcutLoss.of(loss)
    check_rates(lr, learning_rate)
    title = title or type(trunk_of(net)).__name__
    note = choice_in_words(net) if execution is None and fabric is None else None
    execution = execution or usual_execution(net)
    fabric = fabric or build_fabric(execution)
    numbers = Plan(epochs=epochs, **plan)
    batches = loader_of(train, seed=seed, fabric=fabric, even=True)
    total_steps = epochs * len(batches)
    schedule = Linear(start=usual_start(loss.combine)) if schedule is None else schedule
    peak = lr if optimizer is None else max(group["lr"] for group in optimizer.param_groups)
    if loggers is None:
        folder.mkdir(parents=True, exist_ok=True)
        has_branches = isinstance(net, ShortcutNetwork) and not as_schedule(schedule).is_zero_from(0.0)
        loggers = [JsonLines(metrics), Terminal(title, note=note, has_branches=has_branches)]
    with locked_folder(folder):
        rates = [] if optimizer is None else [group["lr"] for group in optimizer.param_groups]
        trainer = Trainer(
            net,
            train=batches,
            validation=None if validation is None else loader_of(validation, seed=seed, fabric=fabric),
            loss=loss,
            schedule=schedule,
            optimizer=optimizer or build_optimizer(net, lr=lr),
            learning_rate=learning_rate or WarmupCosine(peak=peak, total_steps=total_steps),
            plan=numbers,
            execution=execution,
            fabric=fabric,
            folder=folder / "checkpoints",
            loggers=loggers if fabric.is_global_zero else (),
        )
        try:
            return trainer.fit(resume=resume)
        finally:  # so that another training with this optimizer does not start at the final learning rate
            for group, rate in zip(optimizer.param_groups if optimizer else (), rates, strict=True):
                group["lr"] = rate


def loader_of(loader: Loader, *, seed: int, fabric: Fabric | None = None, even: bool = False) -> Batches:
    """Wrap a loader so that it gives this process its batches, epoch by epoch.

    Args:
        loader: as `fit` takes it; a `Batches` that is no `DataLoader` is returned as it is.
        seed: seed of everything the loader draws.
        fabric: the processes that share the loader; if None, this process gets all of it.
        even: whether every process must get the same number of batches.
    """
    if isinstance(loader, Batches) and not isinstance(loader, DataLoader):
        return loader
    if fabric is None or fabric.world_size == 1:
        return SeededBatches(loader, seed=seed)
    if not isinstance(loader, DataLoader):
        return SeededBatches(loader, seed=seed, is_common=True)
    rank = fabric.global_rank
    shared = share_of(loader, rank=rank, world_size=fabric.world_size, even=even, seed=seed)
    by_sampler = type(sampler_of(shared)) in (ShareSampler, DistributedSampler)  # with an order of their own
    # PyTorch's global generator differs by process, and so do all others if only the augmentation draws from them.
    return SeededBatches(shared, seed=seed, rank=rank, is_common=not by_sampler)
