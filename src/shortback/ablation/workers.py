"""Run the cells of an ablation: side by side, going on where they were, each a normal run folder."""

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
    """See that every cell can start or go on in its folder; nothing is written.

    Raises:
        ValueError: a cell that could not be built, such as one with branches at a place that does not exist; a folder
            that holds another run, and what differs.
    """
    for kind in {(cell.settings, cell.method): cell for cell in cells}.values():
        check_recipe(kind.recipe)
    for cell in cells:
        recipe, _ = resolve(cell.recipe)
        folder = RunFolder(out / cell.folder)
        if folder.recipe.exists():
            folder.check(folder.placed(recipe), resume=True, overwrite=False)


def run_cells(cells: Sequence[Cell], out: Path, *, jobs: int, watch: Callable[[set[Path]], None]) -> None:
    """Run every cell that is not finished; one that fails leaves its error in its folder and the others go on.

    Processes live through all of their cells, so that what is imported and compiled serves the next one too.
    A signal stops them, each with a checkpoint.

    Args:
        cells: of `build_grid`, which `check_cells` has seen.
        out: folder of the ablation.
        jobs: how many side by side. On a CPU each has its share of the cores, on GPUs one of them each in turn.
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
    """A process that runs one cell after another; a new one takes the place of one that died."""

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
        with contextlib.suppress(OSError):  # of a process that died, which `look` finds
            self._pipe.send(cell)

    def handles(self) -> list[Any]:
        """What becomes ready when there is something to look at."""
        return [self._pipe, self._process.sentinel] if self._process is not None and self.cell is not None else []

    def look(self) -> None:
        """See whether the cell is done, or its process dead."""
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
        """Ask the process to end, which writes a checkpoint first; one that is done with its cell finds no other."""
        if self._process is not None:
            if self.cell is not None:
                self._process.terminate()
            self._pipe.close()

    def wait(self) -> None:
        """Until the process has ended."""
        if self._process is not None:
            self._process.join()


def _work(pipe: connection.Connection, number: int, jobs: int, out: Path) -> None:
    """What a worker's process does: the cells that come through the pipe."""
    # Ctrl-C is for the parent, which stops this process by a signal of its own. Not a session of its own: on Linux the
    # niceness of a process is among those of its session alone, and `nice shortback ablate` would not give way.
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    # Before CUDA begins, of which a count does not make it begin: Fabric takes the first GPU that it sees.
    gpu = own_gpu(number, visible=os.environ.get("CUDA_VISIBLE_DEVICES"), count=torch.cuda.device_count())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::jobs] or cores)  # which decides how many processes load
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    with contextlib.suppress(EOFError, OSError):  # the parent has gone, or wants no more
        while _run_cell(pipe.recv(), out):
            pipe.send(True)
        pipe.send(False)


def own_gpu(number: int, *, visible: str | None, count: int) -> str | None:
    """The GPU of a worker, as `CUDA_VISIBLE_DEVICES` names it; None if there is none.

    Args:
        number: of the worker; GPUs are given in turn.
        visible: the value of `CUDA_VISIBLE_DEVICES`, if it is set.
        count: of the GPUs that can be used.
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
    """One run, its output in a file beside its folder; returns whether the process is fit for another.

    Whoever else runs the same cell is waited for: a process that outlives its killed parent by a step, or a second
    command on the same folder.
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
                torch.compiler.reset()  # a process keeps a limited number of graphs for one and the same `forward`
            try:
                train_recipe(cell.recipe, folder, resume=True)
            except Exception:
                traceback.print_exc()
                raise
    except Interrupted:
        os._exit(0)
    except Exception as problem:
        _write_error(folder, f"{type(problem).__name__}: {problem}")
        return isinstance(problem, (UserError, NonFiniteError))  # after others a GPU may be of no use any more
    return True


def _write_error(folder: Path, message: str) -> None:
    with contextlib.suppress(OSError):  # a full disk is no reason to end the others
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR_FILE).write_text(message + "\n")
