"""Draw figure 2 of the paper for trained networks, from the output of `shortback diagnose ... --json`.

    shortback diagnose runs/resnet34/vanilla-seed0 --json > vanilla.json
    python scripts/figure2.py --picture vanilla=vanilla.json evolutionary=evolutionary.json --keep full=full.json \
        --out benchmarks/results/figure2-trained

Writes OUT.json with the first layer of every diagnosis, and OUT.png with those of --picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from shortback.health.plots import INK, canvas, colours


def first_layer(path: Path) -> dict[str, Any]:
    """Pick the first layer from a diagnosis, with a short description of its network."""
    report = json.loads(path.read_text())
    measured = report["measurement"]
    layer = measured["layers"][0]
    kept = ("name", "weight_norm", "gradient_norm", "vanilla_norm", "branch_share")
    return {
        "title": report["title"],
        "verdict": report["judgement"]["verdict"],
        "samples": measured["num_samples"],
        "loss": measured["loss"],
        "coefficient": measured["coefficient"],
        "layer": {key: layer[key] for key in kept},
        "histogram": measured["first_layer"],
    }


def draw(of: dict[str, dict[str, Any]]) -> Figure:
    """Draw the density of the first layer's gradient, one curve per network over the network's own bins."""
    figure, axes = canvas("gradient of a weight of the first layer", "density")
    for (name, found), colour in zip(of.items(), colours(len(of)), strict=True):
        edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]["whole loss"]
        total = sum(counts)
        widths = [right - left for left, right in itertools.pairwise(edges)]
        density = [count / total / width for count, width in zip(counts, widths, strict=True)]
        axes.stairs(density, edges, label=name, color=colour, fill=True, alpha=0.35)
        axes.stairs(density, edges, color=colour)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--keep", nargs="*", default=[], metavar="NAME=FILE", help="for OUT.json only")
    parser.add_argument("--out", type=Path, required=True, help="without an ending")
    arguments = parser.parse_args()
    named = [entry.split("=", 1) for entry in arguments.picture + arguments.keep]
    found = {name: first_layer(Path(path)) for name, path in named}
    drawn = {name: found[name] for name, _ in named[: len(arguments.picture)]}
    draw(drawn).savefig(arguments.out.with_suffix(".png"), dpi=110)
    arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
