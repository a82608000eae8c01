"""How long does an ablation's run take to finish its first step, after other runs in the same process?"""

from __future__ import annotations

import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import Settings, run, spread
from shortback.ablation.grid import METHODS, Cell, build_grid
from shortback.ablation.workers import LOG_FILE, run_cells

BUNDLED = ["data.train_images=2048", "train.epochs=1", "train.log_every=1"]
CIFAR10 = ["data.kind=image_folder", "data.train_images=2048", "train.epochs=1", "train.log_every=1"]
QUICK = ["data.train_images=256", "model.width=0.125", "model.name=resnet20"]
POLL_SECONDS = 0.02


def measure(settings: Settings) -> dict[str, Any]:
    """Time each cell, in the order in which one process runs them: each method's first seed, then the later seeds.

    The time is from the creation of a cell's log to the row of its first step. It includes reading the data, building
    the network, measuring its gradients, and compiling.
    """
    recipe, changes = "quickstart", BUNDLED
    if settings.data is not None:
        recipe, changes = "cifar10-plain32", [*CIFAR10, f"data.root={settings.data}"]
    if settings.quick:
        changes = [*changes, *QUICK]
    methods = METHODS[:1] if settings.quick else METHODS
    cells = build_grid(recipe, settings=changes, methods=methods, seeds=min(settings.rounds, 4), axes=())
    with tempfile.TemporaryDirectory() as folder:
        taken = _seconds_to_first_steps(cells, Path(folder))
    for cell, took in taken.items():
        print(f"  {cell:24}  {took:6.2f} s", flush=True)
    return {
        "recipe": recipe,
        "changes": changes,
        "by_cell": taken,
        "first_of_all": next(iter(taken.values())),
        "later_seeds": spread(list(taken.values())[len(methods) :]),
    }


def _seconds_to_first_steps(cells: Sequence[Cell], out: Path) -> dict[str, float]:
    taken: dict[str, float] = {}

    def poll() -> None:
        for cell in cells:
            began = _wait_until((out / f"{cell.folder}.{LOG_FILE}").exists)
            metrics = out / cell.folder / "metrics.jsonl"
            taken[str(cell.folder)] = _wait_until(functools.partial(_has_stepped, metrics)) - began

    watcher = threading.Thread(target=poll, daemon=True)
    watcher.start()
    run_cells(cells, out, jobs=1, watch=lambda running: None)
    watcher.join(timeout=10 * POLL_SECONDS)
    if len(taken) < len(cells):
        raise RuntimeError(f"of {len(cells)} cells only {len(taken)} made a step")
    return taken


def _wait_until(there: Callable[[], bool]) -> float:
    while not there():
        time.sleep(POLL_SECONDS)
    return time.perf_counter()


def _has_stepped(metrics: Path) -> bool:
    if not metrics.exists():
        return False
    whole = (line for line in metrics.read_text().splitlines(keepends=True) if line.endswith("}\n"))
    return any(json.loads(line)["kind"] == "step" for line in whole)


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("data",))


if __name__ == "__main__":
    main()
