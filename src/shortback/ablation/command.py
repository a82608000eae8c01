"""The commands `ablate` and `report`: plan a grid, run it with a live table, and write its results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from shortback.ablation.grid import Cell
from shortback.ablation.groups import group_runs, to_dict
from shortback.ablation.join import CELLS_FILE, check_comparable, join, read_cells
from shortback.ablation.page import write_ablation_page
from shortback.ablation.run import CellRun, read_run
from shortback.ablation.table import terminal_tables
from shortback.ablation.time_to_accuracy import check_thresholds
from shortback.ablation.workers import check_cells, run_cells
from shortback.errors import UserError
from shortback.files import write_text
from shortback.recipes.load import flatten
from shortback.recipes.methods import BASELINE, SCHEDULE_KEYS, method_uses
from shortback.recipes.schema import Recipe
from shortback.words import quantity

RESULTS_FILE, PAGE_FILE = "results.json", "report.html"


class Ablation:
    """A grid of runs in a folder.

    Args:
        recipe: name of the recipe, for titles.
        cells: from `build_grid`.
        out: the folder.
    """

    def __init__(self, recipe: str, cells: Sequence[Cell], *, out: Path) -> None:
        self.recipe, self.out, self.console = recipe, out, Console(soft_wrap=True, highlight=False, markup=False)
        self.cells = cells
        self._finished: dict[Path, CellRun] = {}

    def print_plan(self, *, jobs: int) -> None:
        """Print the grid and an estimate of the time, from two measured steps of every kind of cell.

        Raises:
            ValueError: `jobs` is below 1, or the cells cannot run in the folder.
        """
        from shortback.runs.rehearsal import seconds_a_step

        if jobs < 1:
            raise UserError(f"--jobs {jobs}: must be 1 or more")
        self._check()
        jobs = min(jobs, len(self.cells))
        measured: dict[str, tuple[float, int]] = {}
        table = Table(Column("run", overflow="fold"), "steps", "s a step", "minutes", "so far")
        total = 0.0
        for cell, run in zip(self.cells, self._runs(), strict=True):
            kind = _timing_key(cell.recipe)
            if kind not in measured:
                measured[kind] = seconds_a_step(cell.recipe, jobs=jobs)
            per_step, steps = measured[kind]
            done = steps if run.summary else run.last["step"] if run.last else 0
            total += per_step * (steps - done)
            row = [str(cell.folder), str(steps), f"{per_step:.3f}", f"{per_step * steps / 60:.1f}"]
            table.add_row(*row, "finished" if run.summary else f"{done / steps:.0%} done" if done else "nothing")
        self.console.print(table)
        side_by_side = f", {jobs} side by side, each with its share of the machine" if jobs > 1 else ""
        self.console.print(
            f"{quantity(len(self.cells), 'run')}, {_about(total / jobs)} of steps left{side_by_side}; "
            "validation, gradient measurements and checkpoints are not included"
        )

    def run(self, *, jobs: int, thresholds: Sequence[float] = ()) -> bool:
        """Run the unfinished cells and write the results of all cells; returns whether any cell failed.

        Raises:
            ValueError: the cells cannot run in the folder, or a threshold is not an accuracy.
            Interrupted: by a signal; the results so far are written.
        """
        check_thresholds(thresholds)
        self._check()
        self._remember_cells()
        shown = _Shown(self.console, len(self.cells))
        try:
            with Live(console=self.console, refresh_per_second=2, transient=True) as live:
                interactive = self.console.is_terminal

                def watch(running: set[Path]) -> None:
                    runs = self._runs()
                    shown.note(runs)
                    if interactive:
                        live.update(_progress(runs, running))

                run_cells(self.cells, self.out, jobs=jobs, watch=watch)
        finally:
            write_results(join([self.out]), self.out, self.console, f"Ablation of {self.recipe}", thresholds)
        return any(run.status == "failed" for run in self._runs())

    def _check(self) -> None:
        """Check that all cells can run in the folder, beside the cells of earlier grids in it."""
        check_comparable(self.cells, self.out)
        check_cells(self.cells, self.out)

    def _runs(self) -> list[CellRun]:
        """All runs as they are now; finished runs are not read again."""
        runs = [self._finished.get(cell.folder) or self._read(cell) for cell in self.cells]
        self._finished |= {cell.folder: run for cell, run in zip(self.cells, runs, strict=True) if run.summary}
        return runs

    def _read(self, cell: Cell) -> CellRun:
        return read_run(cell.settings, cell.method, cell.seed, self.out / cell.folder, within=self.out)

    def _remember_cells(self) -> None:
        """Add the cells to the file that `report` reads, beside the cells of earlier grids in the same folder."""
        self.out.mkdir(parents=True, exist_ok=True)
        own = {
            str(cell.folder): {"settings": dict(cell.settings), "method": cell.method, "seed": cell.seed}
            for cell in self.cells
        }
        write_text(self.out / CELLS_FILE, json.dumps(read_cells(self.out) | own, indent=2) + "\n")


def _about(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    return f"about {quantity(round(seconds / 60), 'minute')}"


def _timing_key(recipe: Recipe) -> str:
    """A recipe without settings that do not affect the time of a step: seeds, coefficients, learning rates, etc."""
    tree = flatten(recipe.model_dump(mode="json"))
    free = SCHEDULE_KEYS | {
        "seed",
        "branches.coefficient",
        "optimizer.lr",
        "optimizer.final_lr",
        "optimizer.weight_decay",
    }
    has_branches = recipe.method != BASELINE
    kept = {
        key: value for key, value in tree.items() if key not in free and (has_branches or method_uses(BASELINE, key))
    }
    return json.dumps(kept | {"method": has_branches}, sort_keys=True)


def report_folders(folders: Sequence[Path], out: Path, *, thresholds: Sequence[float] = ()) -> None:
    """Read ablations and single runs, and write `results.json` and the page of all of them into `out`.

    Raises:
        ValueError: a folder holds neither, or only what this function wrote; or a threshold is not an accuracy.
    """
    for folder in folders:
        if {path.name for path in folder.glob("*")} == {RESULTS_FILE, PAGE_FILE}:
            raise UserError(f"{folder} holds a report without its runs: name the folders that it was made from")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    write_results(join(folders), out, console, "Ablation", thresholds)


def write_results(
    runs: Sequence[CellRun], out: Path, console: Console, title: str, thresholds: Sequence[float]
) -> None:
    """Write `results.json` and the page, and print the tables."""
    groups = group_runs(runs, thresholds=thresholds)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / RESULTS_FILE, json.dumps(to_dict(groups), indent=2) + "\n")
    write_ablation_page(out / PAGE_FILE, groups, title=title)
    console.print(terminal_tables(groups))
    console.print(f"{out / RESULTS_FILE}, {out / PAGE_FILE}")


class _Shown:
    """Prints one line for every run when it has finished or failed."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self._done: dict[str, str] = {}

    def note(self, runs: Sequence[CellRun]) -> None:
        for run in runs:
            if run.status not in ("finished", "failed") or self._done.get(run.folder) == run.status:
                continue
            self._done[run.folder] = run.status
            how = run.error if run.summary is None else f"test accuracy {run.summary['test_accuracy']:.2%}"
            self.console.print(f"{len(self._done)} of {self.total}  {run.folder}  {how}")


def _progress(runs: Sequence[CellRun], running: set[Path]) -> Table:
    """A table of the runs under way, with a count of the others."""
    table = Table(Column("run", overflow="fold"), "epoch", "step", "loss", "validation", caption_justify="left")
    for run in runs:
        if Path(run.folder) not in running:
            continue
        last: Mapping[str, Any] = run.last or {}
        validated = run.curve("val_accuracy")
        loss = f"{last['loss']:.3f}" if "loss" in last else ""
        numbers = [str(last.get("epoch", "")), str(last.get("step", "")), loss]
        table.add_row(run.folder, *numbers, f"{validated[-1][1]:.1%}" if validated else "")
    counts = Counter(run.status for run in runs)
    to_come = len(runs) - len(running) - counts["finished"] - counts["failed"]
    table.caption = f"{counts['finished']} finished, {counts['failed']} failed, {to_come} to come"
    return table
