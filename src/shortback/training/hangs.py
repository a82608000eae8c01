"""Name the process that all others are waiting for, and end all of them so that the launcher restarts them."""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from shortback.processes import rank, world_size

_PEERS = timedelta(seconds=10)  # timeout of the store
# A process whose innermost frame is in one of these is waiting for others.
_WAITING = (
    "torch/distributed/",
    "torch/autograd/",
    "lightning_fabric/",
)
_Batch = TypeVar("_Batch")
log = logging.getLogger("shortback")


class _Sign(NamedTuple):
    """A process's last report: its progress, what it has been doing and for how long, and where in the code.

    Attributes:
        moves: counts the batches requested and received; -1 if the process never reported.
        seconds: time since `moves` last changed.
        waits: whether the process is waiting for others.
    """

    rank: int
    moves: int
    seconds: float
    doing: str
    where: str
    waits: bool
    process: str

    def __str__(self) -> str:
        if self.moves < 0:
            return f"rank {self.rank}: never reported"
        return f"rank {self.rank} ({self.process}): {self.doing} for {self.seconds:.0f} s, at {self.where}"


class HangWatch:
    """Detects hangs in a run with several processes; does nothing in a single process.

    Within the context, a thread regularly reports the progress of this process to the launcher's store. If nothing has
    moved for `minutes`, one of the waiting processes prints what every process is doing, the one they wait for first;
    that process prints its stack, and all exit with 1. `torchrun --max-restarts` restarts them.

    Args:
        minutes: time without a new batch that counts as a hang, doubled if a process stopped reporting or never did;
            None to wait for as long as the process group does.
    """

    def __init__(self, minutes: float | None) -> None:
        self.limit = None if minutes is None else minutes * 60
        self._pause = 0.0 if self.limit is None else min(10.0, self.limit / 8)
        self._count, self._since, self._doing = 0, time.monotonic(), "setting up"
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._main = threading.get_ident()

    def over(self, batches: Iterable[_Batch], what: str) -> Iterator[_Batch]:
        """Yield the same batches, noting when each was requested and when it arrived."""
        left = iter(batches)
        for number in itertools.count(1):
            self._note(f"waiting for batch {number} of {what}")
            try:
                batch = next(left)
            except StopIteration:
                break
            self._note(f"working on batch {number} of {what}")
            yield batch
        self._note(f"working after {what}")

    def _note(self, doing: str) -> None:
        self._count, self._since, self._doing = self._count + 1, time.monotonic(), doing

    def __enter__(self) -> HangWatch:
        host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        if self.limit is None or world_size() == 1 or not host or not port:
            return self
        self._main, self._since = threading.get_ident(), time.monotonic()
        self._thread = threading.Thread(target=self._watch, args=(host, int(port)), name="hangs", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _watch(self, host: str, port: int) -> None:
        assert self.limit is not None
        try:
            server = TCPStore(host, port, is_master=False, timeout=_PEERS, wait_for_workers=False)
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = PrefixStore(f"shortback/hangs/{attempt}", server)
            while not self._over.wait(self._pause):
                sign = self._sign()
                store.set(str(sign.rank), json.dumps(sign))
                signs = _signs(store) if sign.seconds > self.limit else []
                if signs and _is_hang(signs, self.limit):
                    self._end(sign, signs)
        except (RuntimeError, ValueError) as error:  # the store's process is gone, as the launcher knows
            log.debug("processes are no longer watched: %s", error)

    def _sign(self) -> _Sign:
        frames = traceback.extract_stack(sys._current_frames().get(self._main))
        last = frames[-1] if frames else None
        waits = last is not None and any(part in last.filename.replace(os.sep, "/") for part in _WAITING)
        where = f"{Path(last.filename).name}:{last.lineno} ({last.name})" if last else "its end"
        process = f"process {os.getpid()} on {socket.gethostname()}"
        return _Sign(rank(), self._count, time.monotonic() - self._since, self._doing, where, waits, process)

    def _end(self, own: _Sign, signs: list[_Sign]) -> None:
        hanging = _hanging(signs)
        if own in hanging:
            stack = "".join(traceback.format_stack(sys._current_frames().get(self._main)))
            print(f"rank {own.rank} stands at\n{stack}", file=sys.stderr, flush=True)
            time.sleep(2 * self._pause + 1)  # else the launcher ends the others before they have printed
        elif own.rank == min(sign.rank for sign in signs if sign not in hanging):
            print(_report(signs, hanging), file=sys.stderr, flush=True)
        os._exit(1)


def _report(signs: list[_Sign], hanging: list[_Sign]) -> str:
    named = " and ".join(f"rank {sign.rank}" for sign in hanging) or "each other (check the network between them)"
    others = [sign for sign in signs if sign not in hanging]
    lines = [f"  {sign}" for sign in [*hanging, *others]]
    return "\n".join([f"the training hangs; the processes wait for {named}:", *lines])


def _signs(store: Any) -> list[_Sign]:
    """The last report of each process."""
    names = [str(number) for number in range(world_size())]
    return [_Sign(*json.loads(store.get(name))) if store.check([name]) else _silent(int(name)) for name in names]


def _silent(number: int) -> _Sign:
    return _Sign(number, -1, 0.0, "", "", waits=False, process="")


def _is_hang(signs: list[_Sign], limit: float) -> bool:
    """Whether all processes report that they stand still, or one of them has stood still for twice the limit."""
    longest = max(sign.seconds for sign in signs)
    return longest > 2 * limit or all(sign.seconds > limit / 2 for sign in signs)


def _hanging(signs: list[_Sign]) -> list[_Sign]:
    """The processes that are behind or never reported; if all are level, those not waiting while others wait."""
    least = min(sign.moves for sign in signs)
    if least < max(sign.moves for sign in signs):
        return [sign for sign in signs if sign.moves == least]
    busy = [sign for sign in signs if not sign.waits]
    return busy if len(busy) < len(signs) else []
