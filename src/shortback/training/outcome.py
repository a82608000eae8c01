"""The possible outcomes of training."""

from __future__ import annotations

from typing import NamedTuple


class NonFiniteError(RuntimeError):
    """The loss or a gradient is no longer finite; the message names what went wrong first."""


class FitResult(NamedTuple):
    """The result of a finished run, which leaves the weights of `best_epoch` in the network.

    Attributes:
        train_seconds: time spent in steps, validation and checkpoints.
        images_per_second: throughput of the steps, over all processes.
        best_val_accuracy: of `best_epoch`; None without validation, and in a regression.
        best_val_loss: of `best_epoch`; None without validation, and if it is not finite.
        best_epoch: the best epoch, from 1; without validation the last.
    """

    epochs: int
    steps: int
    train_seconds: float
    images_per_second: float
    best_val_accuracy: float | None
    best_val_loss: float | None
    best_epoch: int
