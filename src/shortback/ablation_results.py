"""What an ablation found: from the run folders of its cells to means, paired differences and times to accuracy."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shortback.ablation import ERROR_FILE
from shortback.runs import RunFolder
from shortback.significance import Difference, Estimate, estimate, paired_difference

BASELINE = "vanilla"
PARTS = (0.5, 0.75, 0.9, 1.0)  # of the final accuracy of vanilla training
NO_INTERVAL = "an interval needs two seeds or more"


@dataclass(frozen=True)
class Run:
    """One cell as its folder has it.

    Attributes:
        setting: the values of the axes, in words.
        method, seed: of the run.
        folder: where it is, within the ablation.
        summary: None where it is not finished.
        error: why it failed, if it did.
        rows: of `metrics.jsonl`.
    """

    setting: str
    method: str
    seed: int
    folder: str
    summary: dict[str, Any] | None
    error: str | None
    rows: list[dict[str, Any]]

    @property
    def status(self) -> str:
        if self.summary is not None:
            return "finished"
        return "failed" if self.error else "unfinished" if self.rows else "not begun"

    def curve(self, key: str) -> list[tuple[int, float]]:
        """A number by step, over the epochs."""
        return [(row["step"], row[key]) for row in self.rows if row["kind"] == "epoch" and row.get(key) is not None]


@dataclass(frozen=True)
class TimeToAccuracy:
    """When a validation accuracy was first reached at the end of an epoch, the median over the seeds.

    Attributes:
        threshold: the accuracy.
        reached: by how many of the runs, of `num_runs`.
        steps, seconds: median over the seeds; None unless all reached it.
        steps_ratio, seconds_ratio: median over the seeds of the same over those of vanilla; None unless all of both
            reached it.
    """

    threshold: float
    reached: int
    num_runs: int
    steps: float | None
    seconds: float | None
    steps_ratio: float | None
    seconds_ratio: float | None


@dataclass(frozen=True)
class Group:
    """The runs of one method at one setting of the axes.

    Attributes:
        setting, method: of the group.
        accuracy: on the test split.
        difference: of the test accuracy to vanilla over the same seeds; None for vanilla itself.
        times: to the accuracies asked for, or to `PARTS` of vanilla's last.
        runs: all of them, finished or not.
    """

    setting: str
    method: str
    accuracy: Estimate | None
    difference: Difference | None
    times: list[TimeToAccuracy]
    runs: list[Run]


def read_run(setting: str, method: str, seed: int, path: Path, *, within: Path) -> Run:
    """The run in a folder, whatever is there of it."""
    folder, error = RunFolder(path), path / ERROR_FILE
    rows = []
    if folder.metrics.exists():
        # A run under way may have half a line at the end.
        rows = [json.loads(line) for line in folder.metrics.read_text().splitlines() if line.endswith("}")]
    return Run(
        setting=setting,
        method=method,
        seed=seed,
        folder=str(path.relative_to(within)),
        summary=folder.read_summary() if folder.is_finished else None,
        error=error.read_text().strip() if error.exists() and not folder.is_finished else None,
        rows=rows,
    )


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raises `ValueError` for one that is no accuracy."""
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise ValueError(f"--threshold {threshold:g}: an accuracy is above 0 and at most 1, such as 0.6 for 60 %")


def group_runs(runs: Sequence[Run], *, thresholds: Sequence[float] = ()) -> list[Group]:
    """The groups in the order of their first runs. Each is compared with the vanilla runs whose setting it shares.

    A vanilla run has no setting of branches, so its setting is a part of that of the runs it is compared with.

    Args:
        runs: of any methods and settings.
        thresholds: validation accuracies to give the time to; without any, `PARTS` of vanilla's last.

    Raises:
        ValueError: a threshold that is no accuracy.
    """
    check_thresholds(thresholds)
    names = list(dict.fromkeys((run.setting, run.method) for run in runs))
    return [_group(setting, method, runs, thresholds) for setting, method in names]


def to_dict(groups: Sequence[Group]) -> dict[str, Any]:
    """Groups and runs as plain values; of a run its summary and its epochs."""
    content = []
    for group in groups:
        plain = {key: value for key, value in asdict(group).items() if key != "runs"}
        plain["runs"] = [
            {
                "seed": run.seed,
                "folder": run.folder,
                "status": run.status,
                "error": run.error,
                "summary": run.summary,
                "epochs": [row for row in run.rows if row["kind"] == "epoch"],
            }
            for run in group.runs
        ]
        if group.accuracy is not None and group.accuracy.interval is None:
            plain["note"] = NO_INTERVAL
        content.append(plain)
    return {"groups": content}


def _group(setting: str, method: str, runs: Sequence[Run], thresholds: Sequence[float]) -> Group:
    own = [run for run in runs if (run.setting, run.method) == (setting, method)]
    parts = set(setting.split(", "))
    baseline = [run for run in runs if run.method == BASELINE and set(filter(None, run.setting.split(", "))) <= parts]
    ours, theirs = _accuracies(own), _accuracies(baseline)
    difference = paired_difference(ours, theirs) if method != BASELINE else None
    return Group(
        setting=setting,
        method=method,
        accuracy=estimate(list(ours.values())) if ours else None,
        difference=difference,
        times=_times(own, baseline, thresholds or _parts_of_last(baseline)),
        runs=own,
    )


def _accuracies(runs: Sequence[Run]) -> dict[int, float]:
    return {run.seed: run.summary["test_accuracy"] for run in runs if run.summary is not None}


def _parts_of_last(baseline: Sequence[Run]) -> list[float]:
    last = [run.curve("val_accuracy")[-1][1] for run in baseline if run.summary and run.curve("val_accuracy")]
    return [round(part * statistics.fmean(last), 6) for part in PARTS] if last else []  # a sum of them is not exact


def _times(runs: Sequence[Run], baseline: Sequence[Run], thresholds: Sequence[float]) -> list[TimeToAccuracy]:
    num_runs = sum(run.summary is not None for run in runs)

    def median(values: Sequence[float]) -> float | None:
        return statistics.median(values) if len(values) == num_runs else None

    times = []
    for threshold in thresholds if num_runs else ():
        ours, theirs = _reached(runs, threshold), _reached(baseline, threshold)
        pairs = [(ours[seed], theirs[seed]) for seed in ours.keys() & theirs.keys()]
        times.append(
            TimeToAccuracy(
                threshold=threshold,
                reached=len(ours),
                num_runs=num_runs,
                steps=median([steps for steps, _ in ours.values()]),
                seconds=median([seconds for _, seconds in ours.values()]),
                steps_ratio=median([our[0] / their[0] for our, their in pairs]),
                seconds_ratio=median([our[1] / their[1] for our, their in pairs]),
            )
        )
    return times


def _reached(runs: Sequence[Run], threshold: float) -> dict[int, tuple[int, float]]:
    """By seed of the finished runs that reach an accuracy, the steps and seconds until then."""
    found = {run.seed: _first(run, threshold) for run in runs if run.summary is not None}
    return {seed: first for seed, first in found.items() if first is not None}


def _first(run: Run, threshold: float) -> tuple[int, float] | None:
    """Steps and seconds at the end of the first epoch with that accuracy."""
    for row in run.rows:
        if row["kind"] == "epoch" and row["val_accuracy"] is not None and row["val_accuracy"] >= threshold:
            return row["step"], row["seconds"]
    return None
