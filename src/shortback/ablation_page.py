"""The page and the table of an ablation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich import box
from rich.console import Group as Lines
from rich.table import Table as TerminalTable

from shortback.ablation_results import NO_INTERVAL, Group, Run, to_dict
from shortback.health import plots
from shortback.pages import Section, Table, write_page
from shortback.significance import Difference, Estimate

HEADINGS = ("setting", "method", "runs", "test accuracy", "95 % interval", "to vanilla, paired", "95 % interval", "p")
TIME_HEADINGS = ("setting", "method", "accuracy", "reached by", "steps", "/ vanilla", "seconds", "/ vanilla")

RUN_HEADINGS = ("folder", "", "test", "best validation", "seconds", "images/s", "peak MiB")


def rows_of(groups: Sequence[Group]) -> list[list[str]]:
    """The result, a row a group, under `HEADINGS`."""
    return [
        [
            group.setting or "-",
            group.method,
            _statuses(group.runs),
            _mean(group.accuracy),
            _interval(group.accuracy),
            _signed(group.difference),
            _interval(group.difference.estimate if group.difference else None, signed=True),
            _number(group.difference and group.difference.p_value, ".3g"),
        ]
        for group in groups
    ]


def terminal_tables(groups: Sequence[Group]) -> Lines:
    """The result for a terminal: a table a setting, of which 80 columns cut nothing off."""
    tables: dict[str, TerminalTable] = {}
    for setting, method, runs, accuracy, interval, difference, difference_interval, p_value in rows_of(groups):
        table = tables.setdefault(setting, _terminal_table(setting))
        table.add_row(method, runs, f"{accuracy}\n{interval}", f"{difference}\n{difference_interval}", p_value)
    return Lines(*tables.values(), _note(groups))


def _terminal_table(setting: str) -> TerminalTable:
    title = None if setting == "-" else setting
    table = TerminalTable(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("runs")
    for heading in ("test accuracy\n95 % interval", "to vanilla, paired\n95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    return table


def write_ablation_page(path: Path, groups: Sequence[Group], *, title: str) -> None:
    """The result as one self-contained page."""
    time_rows = [
        [
            group.setting or "-",
            group.method,
            f"{time.threshold:.1%}",
            f"{time.reached} of {time.num_runs}",
            _number(time.steps, ".0f"),
            _number(time.steps_ratio, ".2f"),
            _number(time.seconds, ".0f"),
            _number(time.seconds_ratio, ".2f"),
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
            "Result", text=[_note(groups)], tables=[Table("Test accuracy over the seeds", HEADINGS, rows_of(groups))]
        ),
        Section("Curves", figures=curves),
        Section(
            "Time to accuracy",
            text=[
                "When a validation accuracy was first reached at the end of an epoch, the median over the seeds: the "
                "accuracies asked for, or parts of the last one of vanilla training. Seconds of runs that were trained "
                "side by side with others depend on these too."
            ],
            tables=[Table("Steps and seconds to a validation accuracy", TIME_HEADINGS, time_rows)],
        ),
    ]
    caption = "Every run: test accuracy, best validation accuracy, seconds of training"
    sections.append(
        Section("Runs", text=_made_with(runs), tables=[Table(caption, RUN_HEADINGS, [_run_row(run) for run in runs])])
    )
    if failed:
        sections.append(Section("Failed", tables=[Table("Runs that failed", ("run", "error"), failed)]))
    write_page(path, title=title, lead=_lead(groups), sections=sections, data=to_dict(groups))


def _run_row(run: Run) -> list[str]:
    summary = run.summary or {}
    keys = {
        "test_accuracy": ".2%",
        "best_val_accuracy": ".2%",
        "train_seconds": ".0f",
        "images_per_second": ".0f",
        "peak_memory_mb": ".0f",
    }
    return [run.folder, run.status, *(_number(summary.get(key), form) for key, form in keys.items())]


def _made_with(runs: Sequence[Run]) -> list[str]:
    """What the finished runs ran on, a line for every kind."""
    lines = []
    for summary in (run.summary for run in runs if run.summary is not None):
        versions = ", ".join(f"{name} {version}" for name, version in summary.get("versions", {}).items())
        commit = f", commit {summary['git_commit'][:12]}" if summary.get("git_commit") else ""
        lines.append(f"{summary.get('execution', '')}; {versions}{commit}")
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
    return plots.curves_with_bands(lines, label=label)


def _lead(groups: Sequence[Group]) -> str:
    """The best that is known to be better than vanilla, or that none is."""
    known = [(group, group.difference.estimate) for group in groups if group.difference]
    known = [(group, found, found.interval) for group, found in known if found.interval is not None]
    if not known:
        return f"No comparison yet: {NO_INTERVAL}, of vanilla training and of another method."
    group, found, interval = max(known, key=lambda one: (one[2][0] > 0, one[1].mean))
    if interval[0] <= 0:
        return "No method beats vanilla training with a paired 95 % interval above zero."
    name = " at ".join(filter(None, (group.method, group.setting)))
    return f"{name}: {_signed(group.difference)} over vanilla, 95 % interval {_interval(found, signed=True)}."


def _note(groups: Sequence[Group]) -> str:
    unfinished = sum(run.status != "finished" for group in groups for run in group.runs)
    parts = ["Differences are of runs of the same seed, in points of test accuracy."]
    if any(group.accuracy is not None and group.accuracy.interval is None for group in groups):
        parts.append(f"Where none is printed, {NO_INTERVAL}.")
    compared = sum(group.difference is not None and group.difference.p_value is not None for group in groups)
    if compared > 1:
        parts.append(f"The p-values are not corrected for the number of comparisons, {compared}.")
    if unfinished:
        parts.append(
            f"{unfinished} run is not finished." if unfinished == 1 else f"{unfinished} runs are not finished."
        )
    return " ".join(parts)


def _statuses(runs: Sequence[Run]) -> str:
    counts = {status: sum(run.status == status for run in runs) for status in dict.fromkeys(run.status for run in runs)}
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _mean(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.mean:.2%}" + ("" if estimate.std is None else f" ± {100 * estimate.std:.2f}")


def _signed(difference: Difference | None) -> str:
    return "" if difference is None else f"{100 * difference.estimate.mean:+.2f}"


def _interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None or estimate.interval is None:
        return ""
    form = "+.2f" if signed else ".2f"
    return " to ".join(format(100 * bound, form) for bound in estimate.interval)
