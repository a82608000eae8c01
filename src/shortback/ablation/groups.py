"""What an ablation found: the means of its runs, and paired differences to vanilla training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shortback.ablation.grid import Settings, on_one_line
from shortback.ablation.run import CellRun
from shortback.ablation.significance import Difference, Estimate, estimate, paired_difference
from shortback.ablation.time_to_accuracy import TimeToAccuracy, check_thresholds, times_to_accuracy
from shortback.recipes.methods import BASELINE
from shortback.runs.summary import Summary

NO_INTERVAL = "an interval needs two seeds or more"


@dataclass(frozen=True)
class Group:
    """The runs of one method at one setting of the axes.

    Attributes:
        settings, method: of the group.
        validation: best accuracy on the validation split, by which methods and settings are chosen.
        accuracy: on the test split, with the weights that were best on the validation split.
        validation_difference, difference: paired differences of these two to vanilla; None for vanilla itself, or
            without a common seed.
        times: to the accuracies asked for, or to fractions of vanilla's last.
        runs: all runs, finished or not.
    """

    settings: Settings
    method: str
    validation: Estimate | None
    accuracy: Estimate | None
    validation_difference: Difference | None
    difference: Difference | None
    times: list[TimeToAccuracy]
    runs: list[CellRun]

    @property
    def setting(self) -> str:
        """The values of the axes on one line; empty if there are none."""
        return on_one_line(self.settings)


def group_runs(runs: Sequence[CellRun], *, thresholds: Sequence[float] = ()) -> list[Group]:
    """Group runs, in the order of their first runs, and compare each group with the vanilla runs that match it.

    A vanilla run has no branch settings; it matches the groups whose settings include its own.

    Args:
        runs: runs of any methods and settings, one per seed of each.
        thresholds: validation accuracies to report the time to; by default fractions of vanilla's last.

    Raises:
        ValueError: a threshold is not an accuracy.
    """
    check_thresholds(thresholds)
    kinds = dict.fromkeys((run.settings, run.method) for run in runs)
    return [_group(settings, method, runs, thresholds) for settings, method in kinds]


def to_dict(groups: Sequence[Group]) -> dict[str, Any]:
    """Groups and runs as plain values, with each run's summary and epochs and the recipe of each group's first run."""
    content = []
    for group in groups:
        plain = {key: value for key, value in asdict(group).items() if key not in ("settings", "runs")}
        plain = {"setting": group.setting, "settings": dict(group.settings), **plain}
        plain["recipe"] = next((run.recipe for run in group.runs if run.recipe is not None), None)
        plain["runs"] = [
            {
                "seed": run.seed,
                "folder": run.folder,
                "status": run.status,
                "error": run.error,
                "summary": run.summary,
                "epochs": run.epochs,
            }
            for run in group.runs
        ]
        if group.accuracy is not None and group.accuracy.num_values < 2:
            plain["note"] = NO_INTERVAL
        content.append(plain)
    return {"groups": content}


def _group(settings: Settings, method: str, runs: Sequence[CellRun], thresholds: Sequence[float]) -> Group:
    own = [run for run in runs if (run.settings, run.method) == (settings, method)]
    baseline = [run for run in runs if run.method == BASELINE and set(run.settings) <= set(settings)]

    def compared(value: Callable[[Summary], float | None]) -> tuple[Estimate | None, Difference | None]:
        ours, theirs = _by_seed(own, value), _by_seed(baseline, value)
        difference = paired_difference(ours, theirs) if method != BASELINE else None
        return estimate(list(ours.values()), within=(0.0, 1.0)) if ours else None, difference

    validation, validation_difference = compared(lambda summary: summary.get("best_val_accuracy"))
    accuracy, difference = compared(lambda summary: summary["test_accuracy"])
    return Group(
        settings=settings,
        method=method,
        validation=validation,
        accuracy=accuracy,
        validation_difference=validation_difference,
        difference=difference,
        times=times_to_accuracy(own, baseline, thresholds),
        runs=own,
    )


def _by_seed(runs: Sequence[CellRun], value: Callable[[Summary], float | None]) -> dict[int, float]:
    found = [(run.seed, value(run.summary)) for run in runs if run.summary is not None]
    by_seed = {seed: one for seed, one in found if one is not None}
    assert len(by_seed) == sum(one is not None for _, one in found), "two runs of one seed in one group"
    return by_seed
