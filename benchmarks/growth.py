"""How do step time and peak memory grow with the number of time steps, the batch and the depth?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gates
from harness import Settings, compare, run
from peaks import peaks_of
from workloads import QUICK, Variant, Workload, training_side

STEPS = 1, 2, 4, 8, 16
BATCHES = 16, 32, 64, 128, 256
DEPTHS = 20, 32, 44, 56, 110


def measure(settings: Settings) -> dict[str, Any]:
    """Measure time and peak memory of CIFAR ResNets along each axis, the others at T=4, batch 32 and depth 20."""
    axes = {
        "time steps": [(steps, Workload(model="resnet20", batch_size=32, num_steps=steps)) for steps in STEPS],
        "batch": [(batch, Workload(model="resnet20", batch_size=batch)) for batch in BATCHES],
        "depth": [(depth, Workload(model=f"resnet{depth}", batch_size=32)) for depth in DEPTHS],
    }
    if settings.quick:
        axes = {"time steps": [(QUICK.num_steps, QUICK)]}
    variant = Variant(device=settings.device)
    cases = [_along(settings, axis, points, variant) for axis, points in axes.items() if settings.asks_for(axis)]
    return {"execution": variant.execution().describe(), "cases": cases}


def _along(settings: Settings, axis: str, points: list[tuple[int, Workload]], variant: Variant) -> dict[str, Any]:
    works = {str(work): work for _, work in points}
    time = compare(
        [training_side(name, work, variant) for name, work in works.items()],
        gate=partial(gates.reference, points[0][1], variant),
        over=[],
        title=f"along {axis}",
        **settings.timing(),
    )
    table = []
    for value, work in points:
        memory = peaks_of(work, {str(work): variant}, settings, over=[])["peaks"][str(work)]
        seconds = time["sides"][str(work)]["median"]
        table.append(
            {axis: value, "seconds": seconds, "seconds_each": seconds / value, "peak_bytes": memory["peak_bytes"]}
        )
    return {"axis": axis, "table": table, "time": time}


def draw(results: dict[str, Any], path: Path) -> None:
    """Plot seconds and gibibytes along every axis, each with the line through the origin and the first point."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("matplotlib draws the plot: pip install 'shortback[bench]'") from error
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cases = results["cases"]
    figure, rows = plt.subplots(2, len(cases), figsize=(3.6 * len(cases), 5.4), squeeze=False)
    for column, case in enumerate(cases):
        values = [row[case["axis"]] for row in case["table"]]
        for row, (key, unit, label) in enumerate(
            (("seconds", 1, "s a step"), ("peak_bytes", 2**30, "GiB at the peak"))
        ):
            measured = [point[key] / unit for point in case["table"]]
            axes = rows[row][column]
            axes.plot(values, measured, marker="o")
            axes.plot([0, values[-1]], [0, measured[0] / values[0] * values[-1]], linestyle=":", color="grey")
            axes.set_xlabel(case["axis"])
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "only"), draw=draw)


if __name__ == "__main__":
    main()
