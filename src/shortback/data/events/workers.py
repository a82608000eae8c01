"""Run a job on many items with all cores; a killed process is noticed, and so are the items it was working on."""

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

ITEMS_PER_PROCESS = 64  # items for each further process; fewer are done in this one
CHUNK = 16  # items that a process takes at once
_FIRST: Final = 1  # place of the first item in the shared memory, after the flag that stops the processes

Item = TypeVar("Item")
Result = TypeVar("Result")


class KilledError(ChildProcessError):
    """A process was killed.

    Attributes:
        at: the indices of the items that killed processes were working on.
    """

    def __init__(self, at: Sequence[int]) -> None:
        super().__init__("a process was killed")
        self.at = at


@contextmanager
def results_of(job: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Iterator[Result]]:
    """The results of `job` for all items, in any order, from several processes where that pays and fork is available.

    Args:
        job: a callable that can be pickled.

    Raises:
        KilledError: a process was killed; raised after the results that are available.
    """
    workers = min(num_cores(), len(items) // ITEMS_PER_PROCESS + 1)
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        keep_freed_memory()
        yield map(job, items)
        return
    context = multiprocessing.get_context("fork")
    # A flag to stop, then the process working on each item. No lock is used, since a killed process might hold it.
    shared = memoryview(mmap.mmap(-1, 4 * (_FIRST + len(items)))).cast("i")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(shared,))
    try:
        yield _as_they_come(pool, job, items, shared)
    finally:
        shared[0] = 1  # or the processes would finish their chunks first
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
            killed = True  # other futures may have results
        else:
            yield from future.result()
    if killed:
        pool.shutdown(cancel_futures=True)  # waits until SIGTERM has ended the others: only then are there exit codes
        died = {process.pid for process in processes if process.exitcode not in (None, 0, -signal.SIGTERM)}
        raise KilledError([index for index, process in enumerate(shared[_FIRST:]) if process in died])


class _Worker:
    """State of this process, if it is a worker of the pool."""

    shared: ClassVar[memoryview]


def _begin(shared: memoryview) -> None:
    _Worker.shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent stops them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # with which the pool ends workers; the parent may have a handler
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # a killed parent says nothing, and this process would wait for its queue for ever


def _do(job: Callable[[Item], Result], begin: int, chunk: Sequence[Item]) -> list[Result]:
    results = []
    for place, item in enumerate(chunk, _FIRST + begin):
        if _Worker.shared[0]:
            break
        _Worker.shared[place] = os.getpid()
        results.append(job(item))
        _Worker.shared[place] = 0
    return results
