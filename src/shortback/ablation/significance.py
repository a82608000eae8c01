r"""Whether a difference is real: means with their intervals, and paired differences over the same seeds.

For $n$ values with mean $\bar x$ and standard deviation $s$ (with $n - 1$), the 95 % interval is
$\bar x \pm t_{0.975,\,n-1}\, s / \sqrt n$, Student's $t$ with $n - 1$ degrees of freedom. Values that are all the same,
as accuracies on few images can be, have no interval. Two methods are compared by the differences between runs of the
same seed, which start from the same weights and see the same batches: the mean difference, its interval by the same
formula, and the p-value of the paired t-test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        std: standard deviation, None for fewer than two values.
        interval: 95 % interval of the mean, None for fewer than two values, or if all are the same.
        num_values: `n`.
    """

    mean: float
    std: float | None
    interval: tuple[float, float] | None
    num_values: int


@dataclass(frozen=True)
class Difference:
    """The paired difference of two methods: its estimate, and its p-value, which is None if there is no interval."""

    estimate: Estimate
    p_value: float | None


def estimate(values: Sequence[float], *, within: tuple[float, float] = (-math.inf, math.inf)) -> Estimate:
    """Mean, standard deviation and 95 % interval of at least one value.

    Args:
        within: the range of possible values, such as 0 to 1 for accuracies; the interval is clipped to it.
    """
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Estimate(mean, None, None, count)
    std = statistics.stdev(values)
    if std <= 1e-9 * abs(mean):
        return Estimate(mean, std, None, count)
    half = float(_student().ppf((1 + LEVEL) / 2, count - 1)) * std / math.sqrt(count)
    low, high = within
    return Estimate(mean, std, (max(low, mean - half), min(high, mean + half)), count)


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Our values minus theirs over the seeds that both have; None if there are none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not differences:
        return None
    found = estimate(differences)
    if found.std is None or found.interval is None:
        return Difference(found, None)
    t = abs(found.mean) / (found.std / math.sqrt(len(differences)))
    return Difference(found, float(2 * _student().sf(t, len(differences) - 1)))


def _student():
    from scipy import stats  # half a second to import

    return stats.t
