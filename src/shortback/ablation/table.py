"""The result of an ablation as rows of text, and as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group as Lines
from rich.table import Table as TerminalTable

from shortback.ablation.chance import all_at_chance
from shortback.ablation.groups import NO_INTERVAL, Group
from shortback.ablation.run import CellRun
from shortback.ablation.significance import Difference, Estimate

INTERVAL = "95 % interval"
HEADINGS = ("setting", "method", "runs", "validation", "to vanilla", "test", INTERVAL, "to vanilla", INTERVAL, "p")


def rows_of(groups: Sequence[Group]) -> list[list[str]]:
    """The result as one row per group, under `HEADINGS`."""
    return [
        [
            group.setting or "-",
            group.method,
            _statuses(group.runs),
            _mean(group.validation),
            signed_points(group.validation_difference),
            _mean(group.accuracy),
            interval_points(group.accuracy),
            signed_points(group.difference),
            interval_points(group.difference.estimate if group.difference else None, signed=True),
            number(group.difference and group.difference.p_value, ".2g"),
        ]
        for group in groups
    ]


def terminal_tables(groups: Sequence[Group]) -> Lines:
    """The result for a terminal of 80 columns: for each setting, a table of accuracies and one of differences."""
    runs = [run for group in groups for run in group.runs]
    nothing = all_at_chance(runs)
    accuracies: dict[str, TerminalTable] = {}
    differences: dict[str, TerminalTable] = {}
    for setting, method, status, *numbers, p_value in rows_of(groups):
        validation, to_vanilla, test, interval, difference, its_interval = numbers
        title = None if setting == "-" else setting
        table = accuracies.setdefault(setting, _terminal_table(title, ["runs", "validation", "test", INTERVAL]))
        table.add_row(method, status.replace(", ", "\n"), validation, test, interval)
        if difference:
            headings = ["validation", "test", INTERVAL, "p"]
            table = differences.setdefault(setting, _terminal_table("difference from vanilla, in points", headings))
            table.add_row(method, to_vanilla, difference, its_interval, p_value)
    tables = [table[setting] for setting in accuracies for table in (accuracies, differences) if setting in table]
    return Lines(*([nothing] if nothing else []), *tables, note_on(groups))


def _terminal_table(title: str | None, headings: Sequence[str]) -> TerminalTable:
    table = TerminalTable(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("method", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "runs" else "right", no_wrap=True)
    return table


def note_on(groups: Sequence[Group]) -> str:
    """A few sentences on how to read the numbers."""
    unfinished = sum(run.status != "finished" for group in groups for run in group.runs)
    estimates = [group.difference.estimate for group in groups if group.difference]
    estimates += [group.accuracy for group in groups if group.accuracy]
    parts = ["Differences are between runs of one seed, in accuracy points. Settings are chosen by validation."]
    if any(found.num_values < 2 for found in estimates):
        parts.append(f"Where no interval is printed: {NO_INTERVAL}.")
    if any(found.num_values > 1 and found.interval is None for found in estimates):
        parts.append("Where all values or differences are the same, no interval can be computed.")
    if any(run.tested_on == "validation" for group in groups for run in group.runs):
        parts.append(
            "No test split was given: what is called test is the validation split again, which chose the weights."
        )
    compared = sum(group.difference is not None and group.difference.p_value is not None for group in groups)
    if compared > 1:
        parts.append(f"The p-values are not corrected for the number of comparisons, {compared}.")
    if unfinished:
        parts.append(
            f"{unfinished} run is not finished." if unfinished == 1 else f"{unfinished} runs are not finished."
        )
    return " ".join(parts)


def _statuses(runs: Sequence[CellRun]) -> str:
    counts = {status: sum(run.status == status for run in runs) for status in dict.fromkeys(run.status for run in runs)}
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _mean(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.mean:.2%}" + ("" if estimate.std is None else f" ± {100 * estimate.std:.2f}")


def signed_points(difference: Difference | None) -> str:
    return "" if difference is None else f"{100 * difference.estimate.mean:+.2f}"


def interval_points(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None or estimate.interval is None:
        return ""
    form = "+.2f" if signed else ".2f"
    return " to ".join(format(100 * bound, form) for bound in estimate.interval)
