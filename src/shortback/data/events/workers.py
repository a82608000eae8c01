"""One job for many items by all cores, where none that is killed is waited for."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import ClassVar, TypeVar

from shortback.allocator import keep_freed_memory
from shortback.processes import num_cores

WORTH_PROCESSES = 64  # items below which one process does
CHUNK = 16  # items that a process takes at once

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def results_of(job: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Iterator[Result]]:
    """What comes of all items, in any order; by several processes where it is worth it and they can be forked.

    Args:
        job: can be pickled.

    Raises:
        ChildProcessError: a process was killed, after the results that there are.
    """
    workers = min(num_cores(), len(items) // WORTH_PROCESSES + 1)
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        keep_freed_memory()
        yield map(job, items)
        return
    context = multiprocessing.get_context("fork")
    stopped = mmap.mmap(-1, 1)  # a byte of all; nothing with a lock, which a process that is killed might hold
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(stopped,))
    try:
        yield _as_they_come(pool, job, [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)])
    finally:
        stopped[0] = 1  # or the processes would end their chunks first
        pool.shutdown(cancel_futures=True)


def _as_they_come(
    pool: ProcessPoolExecutor, job: Callable[[Item], Result], chunks: Sequence[Sequence[Item]]
) -> Iterator[Result]:
    futures: list[Future[list[Result]]] = []
    with suppress(BrokenProcessPool):
        for chunk in chunks:
            futures.append(pool.submit(_do, job, chunk))
    killed = len(futures) < len(chunks)
    for future in as_completed(futures):
        if isinstance(future.exception(), BrokenProcessPool):
            killed = True  # others are done already
        else:
            yield from future.result()
    if killed:
        raise ChildProcessError("a process was killed, perhaps because memory ran out")


class _Worker:
    """What this process was told when it began, if it is one of the pool."""

    stopped: ClassVar[mmap.mmap]


def _begin(stopped: mmap.mmap) -> None:
    _Worker.stopped = stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent stops them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the pool ends them, whatever the parent does at it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # one that was killed says nothing, and its queue would be waited at for ever


def _do(job: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [job(item) for item in chunk if not _Worker.stopped[0]]
