"""Stopping gracefully: a signal is remembered, the loop looks."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import torch
from lightning_fabric import Fabric

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Of a terminal, of `kill` and a scheduler, of a terminal that was closed, and of SLURM before a job's time is over."""


class Interrupted(Exception):  # noqa: N818  (an event, not an error)
    """Training was asked to stop and did, with a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


def agreed(received: int | None, fabric: Fabric, *, step: int = 0) -> int:
    """The signal that this process or another got, 0 for none, so that all end by the same one after the same step.

    On GPUs it is asked for every ten steps: until the answer is there the host waits for all that they have to do. It
    is always asked for where no step is given.
    """
    if fabric.world_size == 1:
        return received or 0
    if fabric.device.type != "cpu" and step % 10:
        return 0
    return int(fabric.all_reduce(torch.tensor(float(received or 0)), reduce_op="max"))  # pyright: ignore[reportArgumentType]


class StopRequest:
    """Within this context the first of `SIGNALS` is kept in `received`; a second acts as it would.

    A SIGHUP that is ignored, as under `nohup`, stays so.

    Args:
        at_once: raise `Interrupted` when one comes instead, for code that only waits.
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
