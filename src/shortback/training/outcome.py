"""The possible outcomes of training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shortback.training.state import TrainState


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

    @classmethod
    def of(cls, state: TrainState) -> FitResult:
        """The result of a run that ended in a state."""
        return cls(
            epochs=state.epoch,
            steps=state.step,
            train_seconds=state.all_seconds,
            images_per_second=state.images / state.step_seconds,
            best_val_accuracy=state.best_accuracy if state.best_accuracy >= 0 else None,
            best_val_loss=state.best_loss if state.best_loss < math.inf else None,
            best_epoch=state.best_epoch,
        )
