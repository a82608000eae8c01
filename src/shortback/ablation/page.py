"""The page of an ablation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from shortback.ablation.groups import NO_INTERVAL, Group, to_dict
from shortback.ablation.run import CellRun
from shortback.ablation.table import HEADINGS, interval_points, note_on, number, rows_of, signed_points
from shortback.reports.html import Section, Table, write_page
from shortback.reports.plots import curves_with_bands

TIME_HEADINGS = ("setting", "method", "accuracy", "mean", "reached by", "steps", "/ vanilla", "seconds", "/ vanilla")
RUN_HEADINGS = ("folder", "", "test", "best validation", "seconds", "images/s", "peak MiB")


def write_ablation_page(path: Path, groups: Sequence[Group], *, title: str) -> None:
    """The result as one self-contained page."""
    time_rows = [
        [
            group.setting or "-",
            group.method,
            time.goal,
            f"{time.threshold:.1%}",
            f"{time.reached} of {time.num_runs}",
            number(time.steps, ".0f"),
            number(time.steps_ratio, ".2f"),
            number(time.seconds, ".0f"),
            number(time.seconds_ratio, ".2f"),
        ]
        for group in groups
        for time in group.times
    ]
    curves = [
        (
            _curves(groups, "val_accuracy", "validation accuracy"),
            "Validation accuracy by step, mean and range of seeds.",
        ),
        (_curves(groups, "loss", "training loss"), "Training loss by step, with the branches' share of it."),
        (_curves(groups, "main_loss", "loss of the main output"), "Training loss of the main output by step."),
        (_curves(groups, "branch_share", "share"), "The branches' share of the first layer's gradient by step."),
    ]
    runs = [run for group in groups for run in group.runs]
    failed = [[run.folder, run.error or ""] for run in runs if run.status == "failed"]
    sections = [
        Section(
            "Result", text=[note_on(groups)], tables=[_table("Accuracy over the seeds", HEADINGS, rows_of(groups))]
        ),
        Section("Curves", figures=curves),
        Section(
            "Time to accuracy",
            text=[
                "When a validation accuracy was first reached at the end of an epoch, the median over the seeds: one "
                "that was asked for, or a part of the last one of vanilla training with the same seed. Seconds of runs "
                "that were trained side by side depend on each other."
            ],
            tables=[_table("Steps and seconds to a validation accuracy", TIME_HEADINGS, time_rows)],
        ),
    ]
    caption = "Every run: test accuracy, best validation accuracy, seconds of training"
    sections.append(
        Section("Runs", text=_made_with(runs), tables=[Table(caption, RUN_HEADINGS, [_run_row(run) for run in runs])])
    )
    if failed:
        sections.append(Section("Failed", tables=[Table("Runs that failed", ("run", "error"), failed)]))
    write_page(path, title=title, lead=_lead(groups), sections=sections, data=to_dict(groups))


def _table(caption: str, headings: Sequence[str], rows: list[list[str]]) -> Table:
    """One whose first column is the setting, which is left out if there is none."""
    first = 0 if any(row[0] != "-" for row in rows) else 1
    return Table(caption, headings[first:], [row[first:] for row in rows])


def _run_row(run: CellRun) -> list[str]:
    summary = run.summary or {}
    keys = {
        "test_accuracy": ".2%",
        "best_val_accuracy": ".2%",
        "train_seconds": ".0f",
        "images_per_second": ".0f",
        "peak_memory_mb": ".0f",
    }
    return [run.folder, run.status, *(number(summary.get(key), form) for key, form in keys.items())]


def _made_with(runs: Sequence[CellRun]) -> list[str]:
    """What the finished runs ran on, a line for every kind."""
    lines = []
    for summary in (run.summary for run in runs if run.summary is not None):
        versions = ", ".join(f"{name} {version}" for name, version in summary.get("versions", {}).items())
        found = summary.get("git_commit")
        commit = f", commit {found[:12]}" if found else ""
        split = f", test data {summary['split']}" if summary.get("split") else ""
        lines.append(f"{summary.get('execution', '')}; {versions}{commit}{split}")
    return [line for line in dict.fromkeys(lines) if line != "; "]


def _curves(groups: Sequence[Group], key: str, label: str) -> Figure:
    lines = {}
    for group in groups:
        by_step: dict[int, list[float]] = {}
        for run in group.runs:
            for step, value in run.curve(key):
                by_step.setdefault(step, []).append(value)
        name = ", ".join(filter(None, (group.method, group.setting)))
        lines[name] = [(step, statistics.fmean(v), min(v), max(v)) for step, v in sorted(by_step.items())]
    return curves_with_bands(lines, label=label)


def _lead(groups: Sequence[Group]) -> str:
    """What is best on the validation split, and what the test split says of it."""
    compared = [group for group in groups if group.difference is not None and group.difference.estimate.interval]
    if not compared:
        return f"No comparison yet: {NO_INTERVAL}, of vanilla training and of another method."

    def chosen_by(group: Group) -> float:
        found = group.validation_difference or group.difference  # without a validation split there is no other
        return found.estimate.mean if found else 0.0

    best = max(compared, key=chosen_by)
    if chosen_by(best) <= 0:
        return "Nothing is better than vanilla training on the validation split."
    equal = [group for group in compared if chosen_by(group) == chosen_by(best)]
    if len(equal) > 1:
        names = ", ".join(" at ".join(filter(None, (group.method, group.setting))) for group in equal)
        return f"{len(equal)} are equally good on the validation split, and better than vanilla training: {names}."
    assert best.difference is not None
    assert best.difference.estimate.interval is not None
    name = " at ".join(filter(None, (best.method, best.setting)))
    chance = "" if best.difference.estimate.interval[0] > 0 else ": it may be chance"
    interval = interval_points(best.difference.estimate, signed=True)
    return (
        f"Best on the validation split: {name}. On the test split {signed_points(best.difference)} points over "
        f"vanilla, 95 % interval {interval}{chance}."
    )
