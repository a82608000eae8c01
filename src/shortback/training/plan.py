"""The numbers that define a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from shortback.errors import UserError
from shortback.ops.dynamics import check_count


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of a run.

    Args:
        epochs: number of epochs of the whole run.
        accumulate: number of parts that each batch of the loader is split into, computed in turn to save memory.
        patience: number of epochs without a better validation after which training ends, wherever the coefficient and
            the learning rate are then; None to train all epochs.
        keep_best: number of best epochs whose weights are kept, each in its own file if there are several.
        clip_norm: largest norm of the whole gradient; None for no clipping.
        ema: decay of an exponential moving average of the weights, which is then evaluated and kept; None for none.
        log_every: optimizer steps between logged rows.
        checkpoint_every: optimizer steps between checkpoints within an epoch, besides the one after each epoch.
        hang_minutes: minutes without a new batch after which the process that others wait for is named and all exit.
        watch_every: optimizer steps between checks of the gradients; None for never.
        watch_samples: number of samples of the current batch that these checks use.

    Raises:
        ValueError: a number is outside its range.
    """

    epochs: int
    accumulate: int = 1
    patience: int | None = None
    keep_best: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    log_every: int = 10
    checkpoint_every: int | None = None
    hang_minutes: float | None = 15.0
    watch_every: int | None = None
    watch_samples: int = 16

    def __post_init__(self) -> None:
        required, optional = (
            ("epochs", "accumulate", "log_every", "keep_best"),
            ("checkpoint_every", "watch_every", "patience"),
        )
        for name in (*required, *optional):
            value = getattr(self, name)
            if not (value is None and name in optional):
                check_count(name, value)
        check_count("watch_samples", self.watch_samples, least=2, why="for batch norms")
        if self.clip_norm is not None and not (_is_number(self.clip_norm) and 0 < self.clip_norm < math.inf):
            raise UserError(f"clip_norm={self.clip_norm!r}: must be a positive number, or None")
        if self.hang_minutes is not None and not (_is_number(self.hang_minutes) and self.hang_minutes > 0):
            raise UserError(f"hang_minutes={self.hang_minutes!r}: must be a positive number, or None")
        if self.ema is not None and not (_is_number(self.ema) and 0 < self.ema < 1):
            raise UserError(f"ema={self.ema!r}: must be between 0 and 1, or None")

    def check_validation(self, has_validation: bool) -> None:
        """Raise `UserError` if a number needs a validation split and there is none."""
        if not has_validation and self.patience is not None:
            raise UserError(f"patience={self.patience} needs a validation split: give images to validate on")
        if not has_validation and self.keep_best > 1:
            raise UserError(f"keep_best={self.keep_best} needs a validation split: give images to validate on")

    def is_over(self, epochs: int, *, best_epoch: int) -> bool:
        """Whether training ends after `epochs` epochs, the best of which was `best_epoch`."""
        return epochs >= self.epochs or (self.patience is not None and epochs - best_epoch >= self.patience)

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint within an epoch is due after `step` optimizer steps."""
        return self.checkpoint_every is not None and step % self.checkpoint_every == 0


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
