"""The numbers a training is planned by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of a training.

    Args:
        epochs: of the whole training.
        accumulate: parts a batch is computed in; must divide the batch of a process.
        clip_norm: largest norm of the whole gradient.
        ema: decay of an exponential moving average of the weights, which is then what is evaluated and kept.
        log_every: optimizer steps between rows.
        checkpoint_every: optimizer steps between checkpoints inside an epoch; there is one after each epoch anyway.
        watch_every, watch_samples: how often, and on how many samples, the gradients are looked at.
    """

    epochs: int
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    log_every: int = 10
    checkpoint_every: int | None = None
    watch_every: int | None = None
    watch_samples: int = 16
