"""One job for many items by all cores, where none that is killed is waited for, and what it was at is known."""

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
from typing import ClassVar, Final, TypeVar

from shortback.allocator import keep_freed_memory
from shortback.processes import num_cores

WORTH_PROCESSES = 64  # items below which one process does
CHUNK = 16  # items that a process takes at once
_FIRST: Final = 1  # place of the first item in what all processes share; before it is whether they are to stop

Item = TypeVar("Item")
Result = TypeVar("Result")


class KilledError(ChildProcessError):
    """A process was killed.

    Attributes:
        at: the indices of the items that such processes were at.
    """

    def __init__(self, at: Sequence[int]) -> None:
        super().__init__("a process was killed")
        self.at = at


@contextmanager
def results_of(job: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Iterator[Result]]:
    """What comes of all items, in any order; by several processes where it is worth it and they can be forked.

    Args:
        job: can be pickled.

    Raises:
        KilledError: a process was killed, after the results that there are.
    """
    workers = min(num_cores(), len(items) // WORTH_PROCESSES + 1)
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        keep_freed_memory()
        yield map(job, items)
        return
    context = multiprocessing.get_context("fork")
    # Whether to stop, then which process is at each item; nothing with a lock, which one that is killed might hold.
    shared = memoryview(mmap.mmap(-1, 4 * (_FIRST + len(items)))).cast("i")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(shared,))
    try:
        yield _as_they_come(pool, job, items, shared)
    finally:
        shared[0] = 1  # or the processes would end their chunks first
        pool.shutdown(cancel_futures=True)


def _as_they_come(
    pool: ProcessPoolExecutor, job: Callable[[Item], Result], items: Sequence[Item], shared: memoryview
) -> Iterator[Result]:
    futures: list[Future[list[Result]]] = []
    others = multiprocessing.active_children()
    begins = range(0, len(items), CHUNK)
    with suppress(BrokenProcessPool):
        for begin in begins:
            futures.append(pool.submit(_do, job, begin, items[begin : begin + CHUNK]))
    processes = [process for process in multiprocessing.active_children() if process not in others]
    killed = len(futures) < len(begins)
    for future in as_completed(futures):
        if isinstance(future.exception(), BrokenProcessPool):
            killed = True  # others are done already
        else:
            yield from future.result()
    if killed:
        pool.shutdown(cancel_futures=True)  # ends those that are left by SIGTERM; until then there is no exit code
        died = {process.pid for process in processes if process.exitcode not in (None, 0, -signal.SIGTERM)}
        raise KilledError([index for index, process in enumerate(shared[_FIRST:]) if process in died])


class _Worker:
    """What this process was told when it began, if it is one of the pool."""

    shared: ClassVar[memoryview]


def _begin(shared: memoryview) -> None:
    _Worker.shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent stops them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the pool ends them, whatever the parent does at it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # one that was killed says nothing, and its queue would be waited at for ever


def _do(job: Callable[[Item], Result], begin: int, chunk: Sequence[Item]) -> list[Result]:
    results = []
    for place, item in enumerate(chunk, _FIRST + begin):
        if _Worker.shared[0]:
            break
        _Worker.shared[place] = os.getpid()
        results.append(job(item))
        _Worker.shared[place] = 0
    return results
