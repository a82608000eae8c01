"""Matplotlib figures of runs: training curves of one or many, early exits, and operations by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from shortback.health.plots import COLOURS, INK, canvas, colours, frame, gradient_by_layer


def through_training(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Figures of a run by title, from its rows (`metrics.jsonl`): loss, coefficient, branch share and gradients.

    Values that were not finite are null in a row, and are left out.
    """
    figures = {}
    steps = [row for row in rows if row["kind"] == "step"]
    seen = [row for row in rows if row["kind"] == "health"]
    if steps:
        lines = {"whole loss": "loss", "main output": "main_loss"}
        figures["Loss"] = _by_step("loss", {name: [(r["step"], r[key]) for r in steps] for name, key in lines.items()})
        coefficient = [(row["step"], row["coefficient"]) for row in steps]
        figures["Balance coefficient"] = _by_step("coefficient", {"coefficient": coefficient})
    if len(seen) > 1 and seen[0]["layers"]["branch_share"]:
        first = next(iter(seen[0]["layers"]["branch_share"]))
        all_shares = [(row["step"], row["layers"]["branch_share"].get(first)) for row in seen]
        shares = [(step, share) for step, share in all_shares if share is not None]
        figures["Branch share of the first layer's gradient"] = _by_step(
            "share", {"branches": shares, "main output": [(step, 1 - share) for step, share in shares]}
        )
    if len(seen) > 1:
        chosen = [seen[0], seen[len(seen) // 2], seen[-1]]
        lines = {f"before step {row['step']}": row["layers"]["relative"] for row in chosen}
        figures["Gradient by layer through training"] = gradient_by_layer(
            {name: {layer: v for layer, v in line.items() if v is not None} for name, line in lines.items()}
        )
    return figures


def curves_with_bands(lines: Mapping[str, Sequence[tuple[int, float, float, float]]], *, label: str) -> Figure:
    """Lines over steps, each with a band; a point of a line is `(step, value, lowest, highest)`."""
    figure, axes = canvas("step", label)
    for index, ((name, points), colour) in enumerate(zip(lines.items(), colours(len(lines)), strict=True)):
        if points:
            steps, values, low, high = zip(*points, strict=True)
            style = ("-", "--", ":")[index // len(COLOURS) % 3]
            axes.plot(steps, values, label=name, color=colour, linestyle=style, marker="o", markersize=3)
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    if any(lines.values()):
        figure.set_figheight(figure.get_figheight() + 0.17 * len(lines))
        figure.legend(loc="outside lower left", frameon=False, labelcolor=INK, fontsize=8)
    return figure


def early_exit_curves(result: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy over the mean cost of an image, one point per threshold: in steps or layers, and in operations.

    Args:
        result: from `shortback.runs.early_exit.evaluate_early_exit`.
    """
    units = {"time": "mean number of steps", "depth": "mean number of layers"}
    figure = Figure(figsize=(4.2 * (len(result) + 1), 3.6), layout="constrained", facecolor="none")
    *own, both = figure.subplots(1, len(result) + 1, sharey=True)
    for axes, (kind, tried), colour in zip(own, result.items(), colours(len(result)), strict=True):
        points = tried["points"]
        accuracies = [point["accuracy"] for point in points]
        axes.plot([point["mean"] for point in points], accuracies, marker="o", markersize=4, color=colour)
        for point in points:
            if point["threshold"] in (tried["chosen_threshold"], points[0]["threshold"], points[-1]["threshold"]):
                text = "all" if point["threshold"] > 1 else f"{point['threshold']:g}"
                weight = "bold" if point["threshold"] == tried["chosen_threshold"] else "normal"
                place = (point["mean"], point["accuracy"])
                axes.annotate(text, place, (0, -12), textcoords="offset points", fontsize=7, color=INK, weight=weight)
        frame(axes, units[kind], "test accuracy" if axes is own[0] else "")
        both.plot(
            [(point["macs"] + point["acs"]) / 1e6 for point in points], accuracies, "o-", markersize=4, label=kind
        )
        both.lines[-1].set_color(colour)
    frame(both, "MACs and ACs an image, millions", "")
    if len(result) > 1:
        both.legend(frameon=False, labelcolor=INK)
    return figure


def operations_by_layer(operations: Mapping[str, Any]) -> Figure:
    """Bars of each layer's operations per image, and of how many there would be if no input were zero.

    Args:
        operations: from `shortback.export.operations.Operations.to_dict`.
    """
    layers = operations["layers"]
    figure = Figure(figsize=(7, 1 + 0.22 * len(layers)), layout="constrained", facecolor="none")
    axes = figure.subplots()
    places = range(len(layers))
    kinds = {"dense": "#d5d8dc", "macs": COLOURS[1], "acs": COLOURS[0]}
    labels = {"dense": "if no input were zero", "macs": "MACs", "acs": "ACs"}
    for kind, colour in kinds.items():
        axes.barh(places, [layer[kind] / 1e6 for layer in layers], color=colour, label=labels[kind])
    axes.set_yticks(places, [layer["name"] for layer in layers])
    axes.invert_yaxis()
    frame(axes, f"operations an image, millions, T={operations['num_steps']}", "")
    axes.legend(frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # above the bars
    return figure


def _by_step(label: str, lines: Mapping[str, Sequence[tuple[int, float | None]]]) -> Figure:
    figure, axes = canvas("step", label)
    for (name, points), colour in zip(lines.items(), colours(len(lines)), strict=True):
        there = [(step, value) for step, value in points if value is not None]
        axes.plot([step for step, _ in there], [value for _, value in there], label=name, color=colour)
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    return figure
