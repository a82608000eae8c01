"""Count the spikes and operations of trained networks by method: the table of docs/results.md.

    python scripts/firing_rates.py -s data.root=path/to/cifar10 "ResNet-20=runs/r20-logits" ...

Every folder holds the runs of an ablation. The finished ones are evaluated in float32 on the first test images; a name
may be given for several folders. Writes benchmarks/results/firing_rates.json after every run, and leaves out runs
that are in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from shortback.export.operations import count_operations
from shortback.runs.environment import environment
from shortback.runs.evaluate import load_run
from shortback.runs.folder import RunFolder

OUT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "firing_rates.json"


def measure(path: Path, *, settings: list[str], images: int) -> dict[str, Any]:
    """The firing rates and operations of a run's network on its first test images, and its test accuracy."""
    run, model = load_run(path, settings=[*settings, "train.precision=fp32"])
    run.execution.prepare(model.eval())
    test, size = run.loader(run.splits.source.test, training=False), run.recipe.train.batch_size
    counted = count_operations(model, itertools.islice(test.epoch(0), -(-images // size)))
    return {
        "test_accuracy": RunFolder(path).read_summary()["test_accuracy"],
        "firing_rate": counted.firing_rate,
        "mean_firing_rate": statistics.fmean(counted.firing_rate.values()),
        "macs": counted.macs,
        "acs": counted.acs,
        "images": counted.images,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablations", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    runs = json.loads(arguments.out.read_text())["runs"] if arguments.out.exists() else []
    for name, _, folder in (text.partition("=") for text in arguments.ablations):
        for weights in sorted(Path(folder).rglob("model.safetensors")):
            recipe = RunFolder(weights.parent).read_recipe()
            of_run = {"network": name, "method": recipe.method, "seed": recipe.seed}
            of_run |= {key: getattr(recipe.branches, key) for key in ("combine", "at", "start", "over")}
            if any(of_run.items() <= run.items() for run in runs):
                continue
            runs.append(of_run | measure(weights.parent, settings=arguments.settings, images=arguments.images))
            rate, acs = runs[-1]["mean_firing_rate"], runs[-1]["acs"] / 1e6
            print(f"{name} {recipe.method} seed {recipe.seed}: {rate:.2%}, {acs:.1f} million ACs", flush=True)
            arguments.out.write_text(json.dumps({"environment": environment(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
