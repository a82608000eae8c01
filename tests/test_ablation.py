"""Cells that really run, in processes of their own."""

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortback.ablation import check_cells, own_gpu, run_cells
from shortback.grid import Axis, build_grid
from shortback.runs import RunFolder
from tests.test_experiment import TINY


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
    wrong = next(cell for cell in grid if "nowhere" in cell.setting)
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
    settings = [part for setting in [*TINY, "train.epochs=12", *more] for part in ("-s", setting)]
    words = ["ablate", "quickstart", "--methods", "vanilla", "--seeds", "1", *settings, "--out", str(out)]
    return [sys.executable, "-m", "shortback", *words]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_and_started_again_it_goes_on_and_ends_the_same(tmp_path, number):
    """The process that trains ends with its parent, however that ends, and leaves a checkpoint."""
    process = subprocess.Popen(command(tmp_path / "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "cut" / "vanilla-seed0" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and '"epoch"' in metrics.read_text() and metrics.read_text().count("\n") > 4):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(timeout=60)
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
    grid = cells("train.epochs=1", methods=["vanilla"], seeds=3)
    run_cells(grid, tmp_path, jobs=1, watch=lambda running: None)
    for before, cell in itertools.pairwise(grid):
        ended = (tmp_path / before.folder / "summary.json").stat().st_mtime
        first_row = json.loads((tmp_path / cell.folder / "metrics.jsonl").read_text().splitlines()[0])
        assert first_row["step"] == 1
        began = Path(tmp_path / cell.folder / "recipe.yaml").stat().st_mtime
        assert began - ended < 5
