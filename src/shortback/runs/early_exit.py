"""`shortback eval RUN --early-exit`: calibrate early exits on validation images, and report on test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shortback.errors import UserError
from shortback.export.depth_exit import by_depth
from shortback.export.early_exit import by_step
from shortback.export.exits import Batches, Exits, calibrated, cheapest, exit_curve
from shortback.runs.branches import load_branches
from shortback.runs.evaluate import load_run
from shortback.runs.folder import RunFolder

MAX_ACCURACY_LOSS = 0.005
"""Accuracy that the chosen threshold may lose on validation images, as a fraction."""


def evaluate_early_exit(path: Path, *, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Accuracy and operations on the test split by threshold, for early exit in time, and in depth with kept branches.

    Temperatures and the chosen threshold come from validation images alone.

    Args:
        path, settings: as for `load_run`.

    Returns:
        Results under `time` if the network has more than one step, and under `depth` if the run kept its branches.

    Raises:
        ValueError: see `load_run`; or the run has no validation images, or one step and no branches.
    """
    run, model = load_run(path, settings=settings)
    if run.splits.validation is None:
        raise UserError(f"{path} has no validation images to calibrate on: data.validation_fraction was 0")
    branches = RunFolder(path).branches
    if model.num_steps == 1 and not branches.exists():
        raise UserError(
            f"{path} has a single step, so images cannot leave early in time, and no {branches.name}, with which they "
            "could leave in depth: train with branches.keep=true"
        )
    net = load_branches(model, branches, batch_shape=run.splits.source.batch_shape(2)) if branches.exists() else None
    (model if net is None else net).to(run.fabric.device)
    run.execution.prepare(model)
    splits = run.splits.validation, run.splits.source.test

    def tried(exits: Callable[[Batches], Exits]) -> dict[str, Any]:
        with run.fabric.autocast():
            validation, test = (exits(run.loader(split, training=False).epoch(0)) for split in splits)
        temperatures = calibrated(validation)
        chosen = cheapest(exit_curve(validation, temperatures), loss=MAX_ACCURACY_LOSS)
        return {
            "precision": run.execution.precision,
            "exits": test.at,
            "temperatures": temperatures,
            "accuracy_of_exits": [float((one.argmax(1) == test.labels).float().mean()) for one in test.logits],
            "chosen_threshold": chosen.threshold,
            "chosen_by": f"the cheapest losing at most {MAX_ACCURACY_LOSS:.1%} of accuracy on validation images",
            "points": [asdict(point) for point in exit_curve(test, temperatures)],
        }

    result = {}
    if model.num_steps > 1:
        result["time"] = tried(lambda batches: by_step(model, batches))
    if net is not None:
        result["depth"] = {"places": net.places, **tried(lambda batches: by_depth(net, batches))}
    return result
