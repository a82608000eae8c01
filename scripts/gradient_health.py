"""The worked example of docs/gradient-health.md: three networks, three methods, before and after 300 steps.

    python scripts/gradient_health.py --data path/to/cifar10 --runs runs/gradient-health

Finished runs are not repeated. Writes benchmarks/results/gradient-health.json and pictures beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from shortback.health import plots
from shortback.recipes.load import load_recipe
from shortback.recipes.schema import Recipe
from shortback.runs.diagnose import Checkup, check_recipe_gradients, check_run_gradients
from shortback.runs.folder import RunFolder
from shortback.runs.gradient_page import write_gradient_page
from shortback.runs.train import train_recipe

OUT = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
NETWORKS = {"resnet20": "spiking", "resnet56": "spiking", "resnet56 without skips": "plain"}
METHODS = ("vanilla", "shortcut", "evolutionary")
SETTINGS = [
    "model.num_steps=2",
    "data.kind=image_folder",
    "data.train_images=20000",
    "data.validation_fraction=0.04",
    "train.batch_size=64",
    "train.epochs=1",
    "health.every=50",
    "branches.at=blocks",
]


def recipe_of(network: str, method: str, data: Path) -> Recipe:
    own = [f"model.name={network.split(maxsplit=1)[0]}", f"model.residual={NETWORKS[network]}", f"method={method}"]
    return load_recipe("cifar10-resnet20-mpbn", settings=[*SETTINGS, *own, f"data.root={data}"])


def numbers(checkup: Checkup) -> dict[str, Any]:
    """The parts of a report that the example uses."""
    report = checkup.report.to_dict()
    kept = ("name", "relative", "branch_share", "cosine", "num_zero", "num_weights")
    return {
        "judgement": report["judgement"],
        "main_only": report["main_only"],
        "suggestions": report["suggestions"],
        "layers": [{key: layer[key] for key in kept} for layer in report["measurement"]["layers"]],
        "neurons": report["measurement"]["neurons"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10 as images")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments = parser.parse_args()
    cases = []
    lines: dict[str, dict[str, dict[str, float]]] = {}
    for network in arguments.networks:
        for method in METHODS:
            recipe = recipe_of(network, method, arguments.data)
            folder = arguments.runs / f"{network.replace(' ', '-')}-{method}"
            summary = train_recipe(recipe, folder, resume=True)
            before, after = check_recipe_gradients(recipe), check_run_gradients(folder)
            write_gradient_page(folder.with_suffix(".html"), after)
            rows = [json.loads(line) for line in RunFolder(folder).metrics.read_text().splitlines()]
            case = {"network": network, "method": method, "before": numbers(before), "after": numbers(after)}
            case |= {key: summary[key] for key in ("test_accuracy", "best_val_accuracy", "steps", "train_seconds")}
            case["seen"] = [row for row in rows if row["kind"] == "health"]
            cases.append(case)
            print(line_of(case), flush=True)
            for when, checkup in (("before", before), ("after", after)):
                relative = {layer.name: layer.relative for layer in checkup.report.layers}
                lines.setdefault(network, {})[f"{method}, {when}"] = relative
    environment = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }
    settings = {"settings": SETTINGS, "environment": environment}
    (OUT / "gradient-health.json").write_text(json.dumps({**settings, "cases": cases}) + "\n")
    for network, by_method in lines.items():
        figure = plots.gradient_by_layer(by_method)
        figure.savefig(OUT / f"gradient-health-{network.replace(' ', '-')}.png", dpi=120, facecolor="white")


def line_of(case: dict[str, Any]) -> str:
    """A row of the table in the document."""
    parts = [case["network"], case["method"]]
    for when in ("before", "after"):
        judgement, layers = case[when]["judgement"], case[when]["layers"]
        parts += [
            f"{judgement['verdict']}, {judgement['effective_depth']} of {judgement['num_layers']}",
            f"{judgement['slope']:+.3f}",
            f"{layers[0]['relative']:.1e}",
            f"{layers[-2]['relative']:.1e}",
        ]
    return "| " + " | ".join([*parts, f"{case['test_accuracy']:.1%}"]) + " |"


if __name__ == "__main__":
    main()
