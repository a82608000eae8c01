"""The page and the table of an ablation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich import box
from rich.console import Group as Lines
from rich.table import Table as TerminalTable

from shortback.ablation_results import NO_INTERVAL, Group, to_dict
from shortback.ablation_run import Run
from shortback.health import plots
from shortback.pages import Section, Table, write_page
from shortback.significance import Difference, Estimate

HEADINGS = ("setting", "method", "runs", "validation", "to vanilla", "test", "95 % interval", "to vanilla")
HEADINGS += ("95 % interval", "p")
TIME_HEADINGS = ("setting", "method", "accuracy", "mean", "reached by", "steps", "/ vanilla", "seconds", "/ vanilla")
RUN_HEADINGS = ("folder", "", "test", "best validation", "seconds", "images/s", "peak MiB")


def rows_of(groups: Sequence[Group]) -> list[list[str]]:
    """The result, a row a group, under `HEADINGS`."""
    return [
        [
            group.setting or "-",
            group.method,
            _statuses(group.runs),
            _mean(group.validation),
            _signed(group.validation_difference),
            _mean(group.accuracy),
            _interval(group.accuracy),
            _signed(group.difference),
            _interval(group.difference.estimate if group.difference else None, signed=True),
            _number(group.difference and group.difference.p_value, ".2g"),
        ]
        for group in groups
    ]


def terminal_tables(groups: Sequence[Group]) -> Lines:
    """The result for a terminal: a table a setting and two lines a group, of which 80 columns cut nothing off."""
    tables: dict[str, TerminalTable] = {}
    for setting, method, runs, *numbers, difference, interval, p_value in rows_of(groups):
        table = tables.setdefault(setting, _terminal_table(setting))
        numbers += [f"{difference}, p {p_value}" if p_value else difference, interval]
        pairs = (f"{above}\n{below}" for above, below in zip(numbers[::2], numbers[1::2], strict=True))
        table.add_row(method, runs.replace(", ", "\n"), *pairs)
    return Lines(*tables.values(), _note(groups))


def _terminal_table(setting: str) -> TerminalTable:
    title = None if setting == "-" else setting
    table = TerminalTable(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("method", no_wrap=True)
    table.add_column("runs", no_wrap=True)
    for heading in ("validation\nto vanilla", "test\n95 % interval", "to vanilla, p\n95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def write_ablation_page(path: Path, groups: Sequence[Group], *, title: str) -> None:
    """The result as one self-contained page."""
    time_rows = [
        [
            group.setting or "-",
            group.method,
            time.goal,
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
        Section("Result", text=[_note(groups)], tables=[_table("Accuracy over the seeds", HEADINGS, rows_of(groups))]),
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
    """One whose first column is the setting, which is left out where there is none."""
    first = 0 if any(row[0] != "-" for row in rows) else 1
    return Table(caption, headings[first:], [row[first:] for row in rows])


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
    assert best.difference is not None
    assert best.difference.estimate.interval is not None
    name = " at ".join(filter(None, (best.method, best.setting)))
    chance = "" if best.difference.estimate.interval[0] > 0 else ": it may be chance"
    interval = _interval(best.difference.estimate, signed=True)
    return (
        f"Best on the validation split: {name}. On the test split {_signed(best.difference)} points over vanilla, "
        f"95 % interval {interval}{chance}."
    )


def _note(groups: Sequence[Group]) -> str:
    unfinished = sum(run.status != "finished" for group in groups for run in group.runs)
    estimates = [group.difference.estimate for group in groups if group.difference]
    estimates += [group.accuracy for group in groups if group.accuracy]
    parts = ["Differences are of runs of the same seed, in points of accuracy. Settings are chosen by validation."]
    if any(found.num_values < 2 for found in estimates):
        parts.append(f"Where none is printed, {NO_INTERVAL}.")
    if any(found.num_values > 1 and found.interval is None for found in estimates):
        parts.append("Where all differences are the same, there is none either.")
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
