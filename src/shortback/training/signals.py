"""Stop gracefully: a signal is recorded, and the training loop checks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import torch
from lightning_fabric import Fabric

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Sent by Ctrl-C, by `kill` and schedulers, by a closed terminal, and by SLURM before a job's time limit."""


class Interrupted(Exception):  # noqa: N818  (an event, not an error)
    """A signal stopped the program; training raises this after writing a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


def agreed(received: int | None, fabric: Fabric, *, step: int = 0) -> int:
    """Agree on the signal that any process received, or 0, so that all stop with the same one after the same step.

    On GPUs, processes communicate only every ten steps, since the host has to wait for the GPU's pending work.
    Without a `step`, they always do.
    """
    if fabric.world_size == 1:
        return received or 0
    if fabric.device.type != "cpu" and step % 10:
        return 0
    return int(fabric.all_reduce(torch.tensor(float(received or 0)), reduce_op="max"))  # pyright: ignore[reportArgumentType]


class StopRequest:
    """Within this context, the first of `SIGNALS` is recorded in `received`; a second one has its usual effect.

    If SIGHUP is ignored, as under `nohup`, it stays ignored.

    Args:
        at_once: raise `Interrupted` immediately instead, for code that only waits.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.at_once:
            raise Interrupted(number)
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()
