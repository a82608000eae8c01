"""Run the cells of an ablation in parallel, each in a normal run folder, resuming those that were stopped."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from shortback.ablation.grid import Cell
from shortback.errors import UserError
from shortback.recipes.build import check_recipe, resolve
from shortback.runs.folder import RunFolder

ERROR_FILE, LOG_FILE = "error.txt", "log.txt"
POLL_SECONDS = 1.0


def check_cells(cells: Sequence[Cell], out: Path) -> None:
    """Check that every cell can start or resume in its folder; nothing is written.

    Raises:
        ValueError: a cell cannot be built, such as one with branches at a place that does not exist; a folder holds
            another run, and the message lists what differs.
    """
    for kind in {(cell.settings, cell.method): cell for cell in cells}.values():
        check_recipe(kind.recipe)
    for cell in cells:
        recipe, _ = resolve(cell.recipe)
        folder = RunFolder(out / cell.folder)
        if folder.recipe.exists():
            folder.check(folder.placed(recipe), resume=True, overwrite=False)


def run_cells(cells: Sequence[Cell], out: Path, *, jobs: int, watch: Callable[[set[Path]], None]) -> None:
    """Run every unfinished cell; a cell that fails leaves its error in its folder, and the others continue.

    A worker process runs many cells, so that imports and compiled code serve all of them.
    A signal stops the workers, each after writing a checkpoint.

    Args:
        cells: from `build_grid`, checked by `check_cells`.
        out: folder of the ablation.
        jobs: number of workers. On a CPU each gets its share of the cores; GPUs are assigned to them in turn.
        watch: called about once a second, and at the end, with the folders of the cells that are under way.

    Raises:
        ValueError: `jobs` below 1.
        Interrupted: SIGINT or SIGTERM came; every cell that was under way has a checkpoint.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: must be 1 or more")
    todo = [cell for cell in cells if not RunFolder(out / cell.folder).is_finished]
    for cell in todo:
        (out / cell.folder / ERROR_FILE).unlink(missing_ok=True)
    jobs = min(jobs, len(todo))
    workers = [_Worker(number, jobs, out) for number in range(jobs)]
    from shortback.training.signals import StopRequest

    with StopRequest(at_once=True):
        try:
            while todo or any(worker.cell for worker in workers):
                for worker in workers:
                    if worker.cell is None and todo:
                        worker.start(todo.pop(0))
                connection.wait([handle for worker in workers for handle in worker.handles()], timeout=POLL_SECONDS)
                for worker in workers:
                    worker.look()
                watch({worker.cell.folder for worker in workers if worker.cell is not None})
        finally:
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.wait()
    watch(set())


class _Worker:
    """A process that runs one cell after another; if it dies, a new one takes its place."""

    def __init__(self, number: int, jobs: int, out: Path) -> None:
        self.cell: Cell | None = None
        self._arguments = number, jobs, out
        self._process: SpawnProcess | None = None

    def start(self, cell: Cell) -> None:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, *self._arguments))
            process.start()
            theirs.close()
            self._process = process
        self.cell = cell
        with contextlib.suppress(OSError):  # the process died, which `look` will notice
            self._pipe.send(cell)

    def handles(self) -> list[Any]:
        """Handles that become ready when there is something for `look` to see."""
        return [self._pipe, self._process.sentinel] if self._process is not None and self.cell is not None else []

    def look(self) -> None:
        """Check whether the cell is done, or its process has died."""
        if self._process is None or self.cell is None:
            return
        try:
            if not self._pipe.poll():
                return
            can_go_on = self._pipe.recv()
        except (EOFError, OSError):
            self.wait()
            how = f"the process died, exit code {self._process.exitcode}"
            _write_error(self._arguments[2] / self.cell.folder, how)
            can_go_on = False
        self.cell = None
        if not can_go_on:
            self.wait()
            self._process = None

    def stop(self) -> None:
        """Ask the process to end, after a checkpoint if it runs a cell; an idle one ends as its pipe is closed."""
        if self._process is not None:
            if self.cell is not None:
                self._process.terminate()
            self._pipe.close()

    def wait(self) -> None:
        """Wait until the process has ended."""
        if self._process is not None:
            self._process.join()


def _work(pipe: connection.Connection, number: int, jobs: int, out: Path) -> None:
    """The main function of a worker process: run the cells that arrive through the pipe."""
    # A process group of its own, because Ctrl-C is for the parent, which then stops this process by a signal. Not a new
    # session: Linux compares niceness only within a session, so `nice shortback ablate` would not give way to others.
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    # Before CUDA is initialised (counting devices does not do that): Fabric takes the first GPU that it sees.
    gpu = own_gpu(number, visible=os.environ.get("CUDA_VISIBLE_DEVICES"), count=torch.cuda.device_count())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::jobs] or cores)  # this decides how many processes load data
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or has no more cells
        while _run_cell(pipe.recv(), out):
            pipe.send(True)
        pipe.send(False)


def own_gpu(number: int, *, visible: str | None, count: int) -> str | None:
    """The GPU of a worker, as `CUDA_VISIBLE_DEVICES` names it; None if there is none.

    Args:
        number: number of the worker; GPUs are assigned in turn.
        visible: the value of `CUDA_VISIBLE_DEVICES`, if it is set.
        count: number of usable GPUs.
    """
    if count == 0:
        return None
    names = visible.split(",")[:count] if visible is not None else [str(index) for index in range(count)]
    return names[number % count]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _run_cell(cell: Cell, out: Path) -> bool:
    """Run one cell, logging to a file beside its folder; returns whether the process is fit for another cell.

    Waits for any other process that runs the same cell: one that outlives its killed parent by a step, or one of
    a second command on the folder.
    """
    import torch
    from filelock import FileLock

    from shortback.runs.train import train_recipe
    from shortback.training import Interrupted, NonFiniteError

    folder = out / cell.folder
    beside = folder.parent / f"{folder.name}."
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(f"{beside}lock"),
            open(f"{beside}{LOG_FILE}", "a") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
        ):
            print(f"# {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
            if cell.recipe.train.compile == "model":
                torch.compiler.reset()  # a process keeps only a limited number of graphs per `forward`
            try:
                train_recipe(cell.recipe, folder, resume=True)
            except Exception:
                traceback.print_exc()
                raise
    except Interrupted:
        os._exit(0)
    except Exception as problem:
        _write_error(folder, f"{type(problem).__name__}: {problem}")
        return isinstance(problem, (UserError, NonFiniteError))  # after other errors a GPU may be unusable
    return True


def _write_error(folder: Path, message: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not end the other cells
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR_FILE).write_text(message + "\n")
