"""How long runs train until they reach an accuracy, compared with vanilla training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shortback.ablation.run import CellRun
from shortback.errors import UserError

PARTS = (0.5, 0.75, 0.9, 1.0)  # of the last validation accuracy of vanilla training


@dataclass(frozen=True)
class TimeToAccuracy:
    """When a validation accuracy was first reached at the end of an epoch.

    Attributes:
        goal: in words; a fraction of vanilla's last accuracy refers to the vanilla run of the same seed.
        threshold: the accuracy, its mean over the seeds.
        reached: how many of the `num_runs` finished runs reached it.
        steps, seconds: median over the seeds; None unless all runs reached it.
        steps_ratio, seconds_ratio: median over the seeds of the steps (seconds) relative to vanilla training with the
            same seed; None unless all runs of both reached it.
        steps_ratio_by_seed: None for a seed for which one of the two runs did not reach it.
    """

    goal: str
    threshold: float
    reached: int
    num_runs: int
    steps: float | None
    seconds: float | None
    steps_ratio: float | None
    seconds_ratio: float | None
    steps_ratio_by_seed: dict[int, float | None]


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raise `ValueError` for a threshold that is not an accuracy, above 0 and at most 1."""
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise UserError(f"--threshold {threshold:g}: an accuracy is above 0 and at most 1, such as 0.6 for 60 %")


def times_to_accuracy(
    runs: Sequence[CellRun], baseline: Sequence[CellRun], thresholds: Sequence[float]
) -> list[TimeToAccuracy]:
    """When finished runs of one kind reach an accuracy, compared with vanilla training.

    Args:
        runs: runs of one kind, one per seed.
        baseline: runs of vanilla training, one per seed.
        thresholds: validation accuracies; by default `PARTS` of the last one of vanilla training with the same seed.
    """
    ours = {run.seed: run for run in runs if run.summary is not None}
    theirs = {run.seed: run for run in baseline if run.summary is not None}
    if not ours:
        return []
    if thresholds:
        return [_time(f"{goal:.1%}", dict.fromkeys(ours, goal), ours, theirs) for goal in thresholds]
    last = {seed: run.curve("val_accuracy")[-1][1] for seed, run in theirs.items() if run.curve("val_accuracy")}
    return [
        _time(f"{part:.0%} of vanilla's last", {seed: part * last[seed] for seed in common}, ours, theirs)
        for part in PARTS
        if (common := [seed for seed in ours if seed in last])
    ]


def _time(
    goal: str, thresholds: Mapping[int, float], ours: Mapping[int, CellRun], theirs: Mapping[int, CellRun]
) -> TimeToAccuracy:
    firsts = {seed: _first(ours.get(seed), threshold) for seed, threshold in thresholds.items()}
    of_vanilla = {seed: _first(theirs.get(seed), threshold) for seed, threshold in thresholds.items()}
    ratios = {
        seed: (first[0] / other[0], first[1] / other[1]) if first and other else None
        for (seed, first), other in zip(firsts.items(), of_vanilla.values(), strict=True)
    }
    return TimeToAccuracy(
        goal=goal,
        threshold=statistics.fmean(thresholds.values()),
        reached=sum(first is not None for first in firsts.values()),
        num_runs=len(thresholds),
        steps=_median([first and first[0] for first in firsts.values()]),
        seconds=_median([first and first[1] for first in firsts.values()]),
        steps_ratio=_median([ratio and ratio[0] for ratio in ratios.values()]),
        seconds_ratio=_median([ratio and ratio[1] for ratio in ratios.values()]),
        steps_ratio_by_seed={seed: ratio and ratio[0] for seed, ratio in ratios.items()},
    )


def _first(run: CellRun | None, threshold: float) -> tuple[int, float] | None:
    """Steps and seconds at the end of the first epoch with at least that accuracy; None without one."""
    for row in run.epochs if run else ():
        # Rounding of a fraction of an accuracy must not put it out of reach.
        if row["val_accuracy"] is not None and row["val_accuracy"] >= threshold - 1e-9:
            return row["step"], row["seconds"]
    return None


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.median(there) if len(there) == len(values) else None
