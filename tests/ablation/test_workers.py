"""Cells that really run, in processes of their own."""

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from shortback.ablation.grid import Axis, build_grid
from shortback.ablation.workers import check_cells, own_gpu, run_cells
from shortback.runs.folder import RunFolder
from tests.runs.test_train import TINY

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "cells.py"


def cells(*settings, methods=("vanilla", "evolutionary"), seeds=1, vary=()):
    axes = [Axis.parse(text) for text in vary]
    settings = [*TINY, "train.epochs=1", *settings]
    return build_grid("quickstart", settings=settings, methods=list(methods), seeds=seeds, axes=axes)


def times(out, grid):
    return [(out / cell.folder / "summary.json").stat().st_mtime_ns for cell in grid]


def test_cells_run_side_by_side_and_only_once(tmp_path):
    grid, seen = cells(seeds=2), []
    run_cells(grid, tmp_path, jobs=2, watch=lambda running: seen.append(len(running)))
    assert max(seen) == 2
    assert seen[-1] == 0
    for cell in grid:
        folder = RunFolder(tmp_path / cell.folder)
        assert folder.read_summary()["method"] == cell.method
        assert folder.read_summary()["seed"] == cell.seed
    before = times(tmp_path, grid)
    run_cells(grid, tmp_path, jobs=2, watch=lambda running: None)
    assert times(tmp_path, grid) == before


def test_one_that_fails_leaves_its_error_and_the_others_go_on(tmp_path):
    grid = cells(vary=["branches.at=nowhere,stages"])
    run_cells(grid, tmp_path, jobs=1, watch=lambda running: None)
    wrong = next(cell for cell in grid if ("branches.at", "nowhere") in cell.settings)
    assert "no such module" in (tmp_path / wrong.folder / "error.txt").read_text()
    others = [cell for cell in grid if cell is not wrong]
    assert all(RunFolder(tmp_path / cell.folder).is_finished for cell in others)


def test_cells_that_cannot_run_are_refused_before_the_first_does(tmp_path):
    grid = cells(methods=["vanilla"])
    RunFolder(tmp_path / grid[0].folder).start(grid[0].recipe, overwrite=False)
    check_cells(cells(methods=["vanilla"]), tmp_path / "new")
    with pytest.raises(ValueError, match=r"optimizer\.lr: 0\.07, 0\.05"):
        check_cells(cells("optimizer.lr=0.07", methods=["vanilla"]), tmp_path)
    with pytest.raises(ValueError, match="no such module"):
        check_cells(cells(vary=["branches.at=nowhere,stages"]), tmp_path / "new")
    with pytest.raises(ValueError, match="--jobs 0"):
        run_cells(grid, tmp_path, jobs=0, watch=lambda running: None)


def command(out, *more):
    short = ["train.epochs=12", "data.train_images=60", "train.log_every=1"]
    settings = [part for setting in [*TINY, *short, *more] for part in ("-s", setting)]
    words = ["ablate", "quickstart", "--methods", "vanilla", "--seeds", "1", *settings, "--out", str(out)]
    return [sys.executable, "-m", "shortback", *words]


def test_killed_and_started_again_it_goes_on_and_ends_the_same(tmp_path):
    """The process that trains ends with its parent, however that ends, and leaves a checkpoint."""
    metrics = tmp_path / "cut" / "vanilla-seed0" / "metrics.jsonl"
    for number in (signal.SIGTERM, signal.SIGKILL):
        seen = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command(tmp_path / "cut"), text=True, **pipes)
        deadline = time.monotonic() + 150
        while not (metrics.exists() and metrics.read_text().count('"epoch"') and has_grown(metrics, seen)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        if number == signal.SIGTERM:
            assert process.returncode == 128 + number
            assert "stopped by SIGTERM; run the same command again to resume" in said
        time.sleep(2)
        rows = metrics.read_text()
        time.sleep(1)
        assert metrics.read_text() == rows, "the process that trains is still there"
        assert not (metrics.parent / "summary.json").exists()
    for out in ("cut", "whole"):
        done = subprocess.run(command(tmp_path / out), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def weights(out):
        return (tmp_path / out / "vanilla-seed0" / "model.safetensors").read_bytes()

    assert weights("cut") == weights("whole")


def has_grown(metrics, seen):
    return len(metrics.read_text().splitlines()) > seen + 4


@pytest.mark.parametrize(
    ("visible", "count", "gpus"),
    [
        (None, 0, [None, None, None]),
        (None, 2, ["0", "1", "0"]),
        ("3,5", 2, ["3", "5", "3"]),
        ("GPU-8932f937", 1, ["GPU-8932f937"] * 3),
        ("", 0, [None, None, None]),
    ],
)
def test_workers_take_gpus_in_turn(visible, count, gpus):
    assert [own_gpu(number, visible=visible, count=count) for number in range(3)] == gpus


def test_later_cells_begin_sooner(tmp_path):
    """What is imported, decoded and compiled serves the next cell of the process."""
    out = tmp_path / "cells.json"
    subprocess.run([sys.executable, BENCHMARK, "--quick", "--out", out], check=True, capture_output=True)
    first, *later = json.loads(out.read_text())["results"]["by_cell"].values()
    assert later
    assert max(later) < first


def test_a_process_that_dies_costs_its_cell_and_no_other(tmp_path):
    grid, killed = cells("train.epochs=4", methods=["vanilla"], seeds=2), []

    def kill_one(running):
        if not killed and any((tmp_path / folder / "metrics.jsonl").exists() for folder in running):
            (process,) = multiprocessing.active_children()
            process.kill()
            killed.extend(running)

    run_cells(grid, tmp_path, jobs=1, watch=kill_one)
    (dead,), alive = killed, [cell for cell in grid if cell.folder not in killed]
    assert (tmp_path / dead / "error.txt").read_text() == "the process died, exit code -9\n"
    assert [RunFolder(tmp_path / cell.folder).is_finished for cell in alive] == [True]


def test_a_cell_that_runs_elsewhere_is_waited_for(tmp_path):
    grid = cells(methods=["vanilla"])
    began = []
    with FileLock(tmp_path / "vanilla-seed0.lock"):
        runner = threading.Thread(target=run_cells, args=(grid, tmp_path), kwargs={"jobs": 1, "watch": began.append})
        runner.start()
        while len(began) < 8:  # seconds, in which the process has started and come to the lock
            time.sleep(0.1)
        assert not (tmp_path / "vanilla-seed0" / "recipe.yaml").exists()
    runner.join()
    assert RunFolder(tmp_path / grid[0].folder).is_finished
