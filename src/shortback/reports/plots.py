"""Pictures of trainings, as matplotlib figures: one run's, and the curves of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from shortback.health.plots import COLOURS, INK, canvas, colours, gradient_by_layer


def through_training(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Pictures of a run's rows (`metrics.jsonl`) by their titles: loss, coefficient, shares and gradients by step."""
    figures = {}
    steps = [row for row in rows if row["kind"] == "step"]
    seen = [row for row in rows if row["kind"] == "health"]
    if steps:
        lines = {"whole loss": "loss", "main output": "main_loss"}
        figures["Loss"] = _by_step("loss", {name: [(r["step"], r[key]) for r in steps] for name, key in lines.items()})
        coefficient = [(row["step"], row["coefficient"]) for row in steps]
        figures["Balance coefficient"] = _by_step("coefficient", {"coefficient": coefficient})
    if len(seen) > 1:
        first = next(iter(seen[0]["layers"]["branch_share"]))
        shares = [(row["step"], row["layers"]["branch_share"][first]) for row in seen]
        figures["Branch share of the first layer's gradient"] = _by_step(
            "share", {"branches": shares, "main output": [(step, 1 - share) for step, share in shares]}
        )
        chosen = [seen[0], seen[len(seen) // 2], seen[-1]]
        lines = {f"before step {row['step']}": row["layers"]["relative"] for row in chosen}
        figures["Gradient by layer through training"] = gradient_by_layer(lines)
    return figures


def curves_with_bands(lines: Mapping[str, Sequence[tuple[int, float, float, float]]], *, label: str) -> Figure:
    """Lines by step with a band around each: `(step, value, lowest, highest)`."""
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


def early_exit_curve(points: Sequence[Mapping[str, float]], *, chosen: float) -> Figure:
    """Accuracy by the mean number of steps, a point a threshold; the last is without early exit."""
    figure, axes = canvas("mean number of steps", "test accuracy")
    xs, ys = ([point[key] for point in points] for key in ("mean_steps", "accuracy"))
    axes.plot(xs, ys, marker="o", markersize=4, color=COLOURS[0])
    for point, x, y in zip(points, xs, ys, strict=True):
        text = "all steps" if point["threshold"] > 1 else f"{point['threshold']:g}"
        weight = "bold" if point["threshold"] == chosen else "normal"
        place = (-8, 7) if point["threshold"] > 1 else (4, -11)  # where it does not lie on the one before
        axes.annotate(text, (x, y), xytext=place, textcoords="offset points", fontsize=7, color=INK, weight=weight)
    return figure


def _by_step(label: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    figure, axes = canvas("step", label)
    for (name, points), colour in zip(lines.items(), colours(len(lines)), strict=True):
        axes.plot(*zip(*points, strict=True), label=name, color=colour)
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    return figure
