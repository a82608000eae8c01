"""Table 1 of the paper: CIFAR-100, ResNet-18 and ResNet-34, 2 and 4 steps, three methods, as one command.

    python scripts/table1.py --plan              # how long it takes on this machine, from measured steps; runs nothing
    python scripts/table1.py --root path/to/cifar100 --jobs 4

It runs `shortback ablate` for both networks; the same command continues where it was stopped. CIFAR-100 is downloaded
only with --download. At the end it prints the paper's results beside those found; the exit code is 1 if runs failed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shortback.ablation.command import Ablation, report_folders
from shortback.ablation.grid import METHODS, Axis, build_grid
from shortback.ablation.join import join

NETWORKS = ("resnet18", "resnet34")
STEPS = ("2", "4")

# Top-1 accuracy in percent; the evolutionary numbers of ResNet-34 are not known here.
PAPER = {
    ("resnet18", "2"): {"vanilla": 71.42, "shortcut": 73.68, "evolutionary": 74.02},
    ("resnet18", "4"): {"vanilla": 72.22, "shortcut": 74.78, "evolutionary": 74.83},
    ("resnet34", "2"): {"vanilla": 69.82, "shortcut": 74.06},
    ("resnet34", "4"): {"vanilla": 69.98, "shortcut": 75.67},
}


def main() -> None:
    options = parse_arguments()
    settings = [f"data.download={str(options.download).lower()}", *options.set]
    if options.root is not None:
        settings.append(f"data.root={options.root}")
    ablations = {
        network: Ablation(
            f"cifar100-{network}",
            build_grid(
                f"cifar100-{network}",
                settings=settings,
                methods=METHODS,
                seeds=options.seeds,
                axes=[Axis.parse(f"model.num_steps={','.join(STEPS)}")],
            ),
            out=options.out / network,
        )
        for network in NETWORKS
    }
    if options.plan:
        for ablation in ablations.values():
            ablation.print_plan(jobs=options.jobs)
        return
    failed = [network for network, ablation in ablations.items() if ablation.run(jobs=options.jobs)]
    report_folders([ablation.out for ablation in ablations.values()], options.out)
    Console().print(beside_the_paper({network: found(ablation.out) for network, ablation in ablations.items()}))
    if failed:
        sys.exit(1)


def found(folder: Path) -> dict[tuple[str, str], list[float]]:
    """Test accuracies of the finished runs, in percent, by steps and method."""
    accuracies: dict[tuple[str, str], list[float]] = {}
    for run in join([folder]):
        if run.summary is not None:
            key = dict(run.settings)["model.num_steps"], run.method
            accuracies.setdefault(key, []).append(100 * run.summary["test_accuracy"])
    return accuracies


def beside_the_paper(results: dict[str, dict[tuple[str, str], list[float]]]) -> Table:
    """One row per network and number of steps: paper / ours, the mean over seeds and the standard deviation."""
    table = Table("network", "T", *(f"{method}\npaper / here" for method in METHODS))
    for (network, steps), reported in PAPER.items():
        cells = []
        for method in METHODS:
            ours = results.get(network, {}).get((steps, method), [])
            spread = f" ± {statistics.stdev(ours):.2f}" if len(ours) > 1 else ""
            here = f"{statistics.fmean(ours):.2f}{spread} ({len(ours)})" if ours else "-"
            cells.append(f"{reported.get(method, '-')} / {here}")
        table.add_row(network, steps, *cells)
    return table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with CIFAR-100")
    parser.add_argument("--download", action="store_true", help="download CIFAR-100 where it is missing")
    parser.add_argument("--seeds", type=int, default=3, help="trials; the paper has 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, a GPU each in turn")
    parser.add_argument("--out", type=Path, default=Path("runs/table1"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--plan", action="store_true", help="measure steps and print the time; run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
