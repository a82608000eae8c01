"""The settings that a checkpoint and the training resumed from it must have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shortback.inspection.reset import without_states
from shortback.losses import ShortcutLoss
from shortback.schedules import SCHEDULES, Schedule
from shortback.shortcuts import ShortcutNetwork
from shortback.shortcuts.weights import weight_differences
from shortback.targets import loss_identity
from shortback.training.batches import Batches
from shortback.training.checkpoint import CheckpointError
from shortback.training.optim import WarmupCosine
from shortback.training.plan import Plan


def identity_of(
    net: nn.Module,
    train: Batches,
    optimizer: torch.optim.Optimizer,
    *,
    plan: Plan,
    loss: ShortcutLoss,
    schedule: Schedule,
    learning_rate: Callable[[int], float],
) -> dict[str, Any]:
    """Settings that distinguish one run from another, as plain values named as in `training.fit`.

    A user's own schedule or learning-rate function is left out; without branches, so are `combine` and the branch
    weights.
    """
    loader = getattr(train, "loader", train)
    identity: dict[str, Any] = {
        "epochs": plan.epochs,
        "batches an epoch": len(train),
        "batch size": getattr(loader, "batch_size", None),
        "seed": getattr(train, "seed", None),
        "accumulate": plan.accumulate,
        "clip_norm": plan.clip_norm,
        "ema": plan.ema,
        "loss": _described(loss.main),
        "optimizer": type(optimizer).__name__,
        "branches": list(net.places) if isinstance(net, ShortcutNetwork) else [],
    }
    if type(learning_rate) is WarmupCosine:
        identity["learning rate"] = repr(learning_rate)
    if isinstance(net, ShortcutNetwork):
        identity |= {"combine": loss.combine, "branch weights": loss.branch_weights}
        if type(schedule) in SCHEDULES.values():
            identity["schedule"] = repr(schedule)
    return identity


def _described(loss: object) -> str:
    """A loss of this package with its numbers; of any other, the name of its function or class."""
    if dataclasses.is_dataclass(loss):
        return repr(loss)
    kind = loss_identity(loss)
    return getattr(kind, "__qualname__", type(loss).__qualname__)


def check_same(content: Mapping[str, Any], now: Mapping[str, Any], net: nn.Module, *, folder: Path) -> None:
    """Check that a checkpoint belongs to this training.

    Args:
        content: content of the checkpoint.
        now: identity of this training.
        net: network of this training.
        folder: folder of the run, for the message.

    Raises:
        CheckpointError: it belongs to another run; the message lists what differs.
    """
    lines = _differences(content.get("identity", {}), now)
    lines += weight_differences(content["net"], without_states(net), where="checkpoint")
    if lines:
        raise CheckpointError("\n  ".join([f"the run in {folder} is a different one:", *lines]))


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two identities, one line each."""
    return [
        f"{name}: {saved[name]!r} in the checkpoint, {value!r} now"
        for name, value in now.items()
        if name in saved and saved[name] != value
    ]
