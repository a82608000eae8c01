"""How a training ends."""

from __future__ import annotations

from typing import NamedTuple


class NonFiniteError(RuntimeError):
    """The loss or a gradient is no number any more; the message names the first bad layer."""


class FitResult(NamedTuple):
    """How a training ended; the network has the weights of `best_epoch`, from 1: without validation the last."""

    epochs: int
    steps: int
    train_seconds: float
    images_per_second: float
    best_val_accuracy: float | None
    best_val_loss: float | None
    best_epoch: int
