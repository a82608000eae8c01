"""What share of the bare training step's speed does `shortback train` keep, with data, logging and checkpoints?"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import Settings, run, seconds, spread
from shortback.recipes.load import load_recipe
from shortback.runs.rehearsal import Rehearsal

BUNDLED = ["compare=null", "method=evolutionary"]
CIFAR10 = ["data.kind=image_folder", "data.train_images=25600", "train.epochs=1"]
QUICK = ["data.train_images=256", "train.epochs=1", "model.width=0.125"]
STEPS = 20  # of the bare loop per round


def measure(settings: Settings) -> dict[str, Any]:
    """Compare the command, in its own process, with its bare step on a batch in memory, in turn, in images per second.

    `in_steps` is the speed in the run's summary, with loading, logging and the first step's compilation, but without
    validation between epochs. `in_all` includes everything from the first batch to the last checkpoint.
    """
    recipe, changes = "quickstart", BUNDLED
    if settings.data is not None:
        recipe, changes = "cifar10-resnet20-mpbn", [*CIFAR10, f"data.root={settings.data}"]
    if settings.quick:
        changes = [*changes, *QUICK]
    parsed = load_recipe(recipe, settings=changes)
    job = Rehearsal(parsed)
    job.build()
    for _ in range(settings.warmup):
        job.step()
    rates: dict[str, list[float]] = {"bare": [], "in_steps": [], "in_all": []}
    for _ in range(1 if settings.quick else min(settings.rounds, 3)):
        took = seconds(lambda: [job.step() for _ in range(STEPS)], device=job.execution.device)
        rates["bare"].append(STEPS * parsed.train.batch_size / took)
        summary = _train(recipe, changes)
        rates["in_steps"].append(summary["images_per_second"])
        rates["in_all"].append(summary["steps"] * parsed.train.batch_size / summary["train_seconds"])
    over = {
        name: spread([a / b for a, b in zip(rates[name], rates["bare"], strict=True)])
        for name in ("in_steps", "in_all")
    }
    for name, values in rates.items():
        print(f"  {name:8}  {spread(values)['median']:9.1f} images/s")
    print("\n".join(f"  {name} / bare  {ratio['median']:.3f}" for name, ratio in over.items()), flush=True)
    return {
        "recipe": recipe,
        "changes": changes,
        "execution": job.execution.describe(),
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "over_bare": over,
    }


def _train(recipe: str, changes: Sequence[str]) -> dict[str, Any]:
    """Run the command, and return the summary of its run."""
    with tempfile.TemporaryDirectory() as folder:
        options = [word for change in changes for word in ("-s", change)]
        command = [sys.executable, "-m", "shortback", "train", recipe, *options, "--out", f"{folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return json.loads(Path(folder, "run", "summary.json").read_text())


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("data",))


if __name__ == "__main__":
    main()
