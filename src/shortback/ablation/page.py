"""The HTML page of an ablation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from shortback.ablation.chance import all_at_chance
from shortback.ablation.groups import NO_INTERVAL, Group, to_dict
from shortback.ablation.run import CellRun
from shortback.ablation.significance import Difference
from shortback.ablation.table import HEADINGS, interval_points, note_on, number, rows_of, signed_points
from shortback.reports.html import Section, Table, write_page
from shortback.reports.plots import curves_with_bands

TIME_HEADINGS = ("setting", "method", "accuracy", "mean", "reached by", "steps", "/ vanilla", "seconds", "/ vanilla")
RUN_HEADINGS = ("folder", "status", "test", "best validation", "seconds", "images/s", "peak MiB")


def write_ablation_page(path: Path, groups: Sequence[Group], *, title: str) -> None:
    """Write the result as one self-contained page."""
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
            "Validation accuracy by step, mean and range of the seeds, at the steps all have reached.",
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
                "The end of the first epoch that reaches a validation accuracy, as a median over the seeds: a given "
                "accuracy, or a fraction of the last one of vanilla training with the same seed. Runs trained side by "
                "side slow each other down."
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
    """A table whose first column is the setting; the column is left out if no row has one."""
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
    """Hardware, versions and test data of the finished runs, one line per combination."""
    lines = []
    for summary in (run.summary for run in runs if run.summary is not None):
        versions = ", ".join(f"{name} {version}" for name, version in summary.get("versions", {}).items())
        found = summary.get("git_commit")
        commit = f", commit {found[:12]}" if found else ""
        split = f", test data {summary['split']}" if summary.get("split") else ""
        where = " on ".join(filter(None, (summary.get("execution"), summary.get("processor"))))
        lines.append(f"{where}; {versions}{commit}{split}")
    return [line for line in dict.fromkeys(lines) if line != "; "]


def _curves(groups: Sequence[Group], key: str, label: str) -> Figure:
    lines = {}
    for group in groups:
        curves = [curve for run in group.runs if (curve := dict(run.curve(key)))]
        # Only steps that all runs have: a mean over whichever are there would jump where one of them ends.
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        by_step = {step: [curve[step] for curve in curves] for step in steps}
        name = ", ".join(filter(None, (group.method, group.setting)))
        lines[name] = [(step, statistics.fmean(v), min(v), max(v)) for step, v in by_step.items()]
    return curves_with_bands(lines, label=label)


def _lead(groups: Sequence[Group]) -> str:
    """Which group is best on validation, and its result on the test split; without validation, the best on test."""
    if nothing := all_at_chance([run for group in groups for run in group.runs]):
        return nothing
    compared = {
        index: group.difference
        for index, group in enumerate(groups)
        if group.difference is not None and group.difference.estimate.num_values >= 2
    }
    if not compared:
        return f"No comparison yet: {NO_INTERVAL}, of vanilla training and of another method."
    by_validation = {index: groups[index].validation_difference for index in compared}
    has_validation = all(by_validation.values())
    split = "validation" if has_validation else "test"
    chosen_by = {
        index: found.estimate.mean for index, found in (by_validation if has_validation else compared).items() if found
    }
    best = max(chosen_by, key=lambda index: chosen_by[index])
    if chosen_by[best] <= 0:
        return f"Nothing is better than vanilla training on the {split} split."
    names = {index: " at ".join(filter(None, (groups[index].method, groups[index].setting))) for index in compared}
    equal = [names[index] for index in compared if chosen_by[index] == chosen_by[best]]
    if len(equal) > 1:
        return (
            f"{len(equal)} are equally good on the {split} split, and better than vanilla training: {', '.join(equal)}."
        )
    tested_on_validation = any(run.tested_on == "validation" for group in groups for run in group.runs)
    over = f"{signed_points(compared[best])} points over vanilla{_how_sure(compared[best])}."
    if not has_validation:
        return f"Best on the test split, by which it was chosen too: {names[best]}, {over}"
    if tested_on_validation:
        return f"Best on the validation split, the only one there is: {names[best]}, {over}"
    return f"Best on the validation split: {names[best]}. On the test split {over}"


def _how_sure(difference: Difference) -> str:
    interval = difference.estimate.interval
    if interval is None:
        return " with every seed"
    chance = "" if interval[0] > 0 else ": it may be chance"
    return f", 95 % interval {interval_points(difference.estimate, signed=True)}{chance}"
