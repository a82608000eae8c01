r"""Whether runs have learnt anything at all.

For $n$ test images in $K$ classes, guessing has an accuracy of $p = 1 / K$ with a standard deviation of
$\sqrt{p (1 - p) / n}$. A run is at chance if its accuracy is at most three standard deviations above $p$. Always
naming the largest of unequal classes beats $p$; this is not considered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from shortback.ablation.run import CellRun
from shortback.runs.summary import Summary
from shortback.words import quantity


def all_at_chance(runs: Sequence[CellRun]) -> str | None:
    """A sentence if all finished runs are at chance; None if one is not, or if that is unknown."""
    summaries = [run.summary for run in runs if run.summary is not None]
    if not summaries or not all(_is_at_chance(summary) for summary in summaries):
        return None
    kinds = sorted({_num_classes(summary) for summary in summaries})
    chance = " or ".join(f"{1 / kind:.1%} with {quantity(kind, 'class', 'classes')}" for kind in kinds)
    return f"Every run is at chance, {chance}: the comparison says nothing."


def _is_at_chance(summary: Summary) -> bool:
    num_classes, num_images = _num_classes(summary), summary.get("test_images", 0)
    if num_classes < 2 or not num_images:
        return False
    guessed = 1 / num_classes
    return summary["test_accuracy"] <= guessed + 3 * math.sqrt(guessed * (1 - guessed) / num_images)


def _num_classes(summary: Summary) -> int:
    """The number of classes; 0 if it is unknown."""
    return summary.get("num_classes", 0) or len(summary.get("classes", ()))
