"""Draw the pictures of README and of the site's first page from raw files: python scripts/pictures.py

With --measure, the program of docs/index.md is run first, and its measurements are written to the raw file.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import tempfile
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from shortback.health.plots import gradient_by_layer
from shortback.runs.compare import comparison_table
from shortback.runs.environment import environment
from shortback.runs.folder import RunFolder
from shortback.training.rows import read_epochs

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ASSETS = ROOT / "docs" / "assets"
GRADIENT = RESULTS / "first_page.json"

INK, VANILLA, LOSSES, LOGITS = "#3c4352", "#8a93a6", "#e65100", "#1565c0"
SERIES = (("without branches", VANILLA), ("losses added", LOSSES), ("logits added, as in the paper", LOGITS))

# The networks compared: a name, then for each series its files, with method and setting of the branches.
NETWORKS = (
    (
        "32 plain layers\narctan",
        [("ablation_plain32_arctan", "vanilla", ""), ("ablation_plain32_arctan_logits", "vanilla", "")],
        [("ablation_plain32_arctan", "evolutionary", "")],
        [("ablation_plain32_arctan_logits", "evolutionary", "")],
    ),
    (
        "32 plain layers\ntriangular",
        [("ablation_plain32", "vanilla", ""), ("ablation_plain32_logits", "vanilla", "")],
        [("ablation_plain32", "evolutionary", "")],
        [("ablation_plain32_logits", "evolutionary", "")],
    ),
    ("ResNet-56", [("ablation_resnet56", "vanilla", "")], [("ablation_resnet56", "evolutionary", "")], []),
    (
        "ResNet-20",
        [("ablation_resnet20", "vanilla", ""), ("ablation_resnet20_logits", "vanilla", "")],
        [("ablation_resnet20", "evolutionary", "branches.at=stages")],
        [("ablation_resnet20_logits", "evolutionary", "")],
    ),
    (
        "ResNet-34\n1/4 width",
        [("ablation_paper_resnet34_30", "vanilla", "")],
        [("ablation_paper_resnet34_30", "evolutionary", "branches.combine=additive")],
        [("ablation_paper_resnet34_30", "evolutionary", "")],
    ),
    (
        "ResNet-18\n1/4 width",
        [("ablation_paper_resnet18_30", "vanilla", "")],
        [],
        [("ablation_paper_resnet18_30", "evolutionary", "")],
    ),
)


def measure() -> None:
    """Run the first program of the first page, and write the gradients that it measures."""
    (program, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), flags=re.DOTALL)
    here, space = Path.cwd(), {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(compile(program, "docs/index.md", "exec"), space)
        os.chdir(here)
    found = {
        name: {layer.name: layer.relative for layer in space[variable].layers}
        for name, variable in (("without branches", "before"), ("with branches", "after"))
    }
    content = {"benchmark": "docs/index.md", "gradient_over_weight": found, "environment": environment()}
    GRADIENT.write_text(json.dumps(content, indent=1) + "\n")


def opening() -> Figure:
    """Draw the gradient by layer of the first page's network, and the accuracies of docs/results.md, a dot per seed."""
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    gradients = json.loads(GRADIENT.read_text())["gradient_over_weight"]
    for (name, layers), colour in zip(gradients.items(), (VANILLA, LOGITS), strict=True):
        left.plot(range(1, len(layers) + 1), list(layers.values()), color=colour, marker="o", markersize=4, label=name)
    left.set_yscale("log")
    left.set_xticks(range(1, len(layers) + 1, 4))
    left.set(xlabel="layer, from the input to the output", ylabel="gradient over weight")
    left.set_title("What reaches each layer", loc="left")
    left.legend(frameon=False)
    for place, (_, *found) in enumerate(NETWORKS):
        for (_, colour), sources, shift in zip(SERIES, found, (-0.24, 0, 0.24), strict=True):
            accuracies = [accuracy for source in sources for accuracy in _accuracies(*source)]
            right.plot([place + shift] * len(accuracies), accuracies, "o", color=colour, alpha=0.45, markersize=4.5)
            if accuracies:
                mean = sum(accuracies) / len(accuracies)
                right.plot([place + shift - 0.1, place + shift + 0.1], [mean, mean], color=colour, linewidth=2.5)
    right.axhline(10, color=INK, linestyle=":", linewidth=1)
    right.text(len(NETWORKS) - 0.55, 10.6, "chance", ha="right", color=INK, fontsize=9)
    right.set_xticks(range(len(NETWORKS)), [name for name, *_ in NETWORKS], fontsize=8)
    right.set(ylabel="CIFAR-10, test accuracy (%)", ylim=(0, 80))
    right.set_title("Where it helps, and where not (one dot per run)", loc="left")
    marks = [right.plot([], [], "o", color=colour, label=name)[0] for name, colour in SERIES]
    right.legend(
        handles=marks, frameon=False, loc="upper left", ncols=3, fontsize=8.5, columnspacing=1, handletextpad=0
    )
    for axes in (left, right):
        _plain(axes)
    return figure


def _accuracies(file: str, method: str, setting: str) -> list[float]:
    groups = json.loads((RESULTS / f"{file}.json").read_text())["groups"]
    (group,) = [group for group in groups if group["method"] == method and group["setting"] == setting]
    return [100 * run["summary"]["test_accuracy"] for run in group["runs"] if run["summary"]]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
    for words in (axes.xaxis.label, axes.yaxis.label, axes.title):
        words.set_color(INK)


def terminal(folder: Path) -> str:
    """Draw what `shortback train quickstart --out FOLDER` printed, epochs and table, as the SVG of a terminal."""
    console = Console(record=True, width=110, file=io.StringIO(), highlight=False, markup=False)
    console.print("$ shortback train quickstart", style="bold")
    runs = {path.name: path for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_ctime)}
    for name, path in runs.items():
        for row in read_epochs(RunFolder(path).metrics):
            console.print(
                f"{name:20} epoch {row['epoch']}  loss {row['loss']:6.3f}  accuracy {row['accuracy']:6.1%}  "
                f"coefficient {row['coefficient']:.2f}  {row['images_per_second']:.0f} images/s",
                style="dim",
            )
    console.print(comparison_table({name: RunFolder(path).read_summary() for name, path in runs.items()}, folder))
    drawn = console.export_svg(title="shortback train quickstart")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # fonts of another host: the page's own will do


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--quickstart", type=Path, metavar="FOLDER", help="draw the terminal of this run, too")
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
    if arguments.quickstart is not None:
        (ASSETS / "quickstart.svg").write_text(terminal(arguments.quickstart))
    opening().savefig(ASSETS / "opening.png", dpi=150, facecolor="white")
    layers = json.loads(GRADIENT.read_text())["gradient_over_weight"]
    after = gradient_by_layer(layers)
    for line, colour in zip(after.axes[0].lines, (VANILLA, LOGITS), strict=True):  # as in the opening picture
        line.set_color(colour)
    after.axes[0].legend(frameon=False, labelcolor=INK)
    after.savefig(ASSETS / "first-page-after.png", dpi=150, facecolor="white")


if __name__ == "__main__":
    main()
