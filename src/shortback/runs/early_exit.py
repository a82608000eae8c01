"""`shortback eval RUN --early-exit`: calibrated on validation images, reported on test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shortback.errors import UserError
from shortback.export.early_exit import by_step, calibrated, cheapest, exit_curve
from shortback.reports.plots import early_exit_curve
from shortback.runs.evaluate import load_run

LOSS = 0.005
"""Accuracy that may be lost on validation images, as a fraction."""


def evaluate_early_exit(path: Path, *, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Accuracy, steps and operations by threshold, on the test split.

    Temperatures and the threshold that is chosen come of validation images alone.

    Args:
        path, settings: as for `load_run`.

    Raises:
        ValueError: see `load_run`; a run without validation images, or of one step.
    """
    run, model = load_run(path, settings=settings)
    if run.splits.validation is None:
        raise UserError(f"{path} has no validation images to calibrate on: data.validation_fraction was 0")
    if model.num_steps == 1:
        raise UserError(f"{path} has one step, which nothing can leave early")
    model.to(run.fabric.device)
    run.execution.prepare(model)
    with run.fabric.autocast():
        validation = by_step(model, run.loader(run.splits.validation, training=False).epoch(0))
        test = by_step(model, run.loader(run.splits.source.test, training=False).epoch(0))
    temperatures = calibrated(validation)
    chosen = cheapest(exit_curve(validation, temperatures), loss=LOSS)
    points = exit_curve(test, temperatures)
    return {
        "temperatures": temperatures,
        "chosen_threshold": chosen.threshold,
        "chosen_by": f"the fewest steps that lose at most {LOSS:.1%} of accuracy on validation images",
        "points": [asdict(point) for point in points],
    }


def draw(result: dict[str, Any], file: Path) -> None:
    """The curve as a picture, PNG."""
    early_exit_curve(result["points"], chosen=result["chosen_threshold"]).savefig(file, dpi=150)
