"""Pictures of gradient health, as matplotlib figures: save them, or put them into a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from shortback.health.activity import NeuronActivity
from shortback.health.judgement import BAND, reference
from shortback.health.measurement import Histogram
from shortback.health.report import GradientReport

INK = "#767676"  # readable on white and on black
COLOURS = ("#1f77b4", "#e07a1f", "#2f9e44", "#c2255c", "#7048e8", "#0c8599")


def pictures(report: GradientReport) -> dict[str, tuple[Figure, str]]:
    """The pictures of a report by their titles, each with what it shows in words."""
    found = {
        "Gradient by layer": (of_report(report), "Gradient over weight by layer; the band of a factor 100 is shaded.")
    }
    if report.measurement.first_layer is not None:
        found["Gradient of the first layer"] = (
            first_layer(report.measurement.first_layer),
            "Histogram of the gradient over the weights of the first layer (figure 2 of the paper).",
        )
    if report.neurons:
        found["Gradient by layer and time step"] = (
            gradient_by_step(report.neurons),
            "Norm of the gradient that reaches the spikes, by layer of neurons and time step.",
        )
        found["What the neurons do"] = (
            activity_by_layer(report.neurons),
            "Firing rate, membranes inside the surrogate's window, dead and saturated neurons, by layer.",
        )
    return found


def save(report: GradientReport, folder: Path) -> list[Path]:
    """Write the pictures of a report as PNG files into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for title, (figure, _) in pictures(report).items():
        file = folder / f"{title.lower().replace(' ', '-')}.png"
        figure.savefig(file, dpi=150, facecolor="white")
        files.append(file)
    return files


def gradient_by_layer(
    gradients: Mapping[str, Mapping[str, float]], *, band: tuple[float, float] | None = None
) -> Figure:
    """Gradient over weight by layer on a log scale, a line for each name; layers without a gradient are left out.

    Args:
        gradients: by the name of a line, the values by layer in forward order; layers may differ between lines.
        band: shaded, from and to.
    """
    figure, axes = _canvas("layer, from the input to the output", "gradient over weight")
    layers = list(dict.fromkeys(layer for line in gradients.values() for layer in line))
    for (name, line), colour in zip(gradients.items(), _colours(len(gradients)), strict=True):
        at = [i for i, layer in enumerate(layers) if line.get(layer)]
        axes.plot(at, [line[layers[i]] for i in at], marker="o", markersize=3, label=name, color=colour)
    axes.set_yscale("log")
    if band is not None:
        axes.axhspan(*band, color=INK, alpha=0.12, linewidth=0)
    _name_layers(axes, layers)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def of_report(report: GradientReport) -> Figure:
    """`gradient_by_layer` of a report: of the whole loss, and where there are branches through each kind of output."""
    layers = [layer for layer in report.layers if layer.weight_norm]
    whole = {layer.name: layer.relative for layer in layers}
    lines = {"vanilla": whole}
    if report.main_only is not None:
        lines = {
            "shortcut (whole loss)": whole,
            "vanilla (loss of the main output)": {n.name: (n.vanilla_norm or 0.0) / n.weight_norm for n in layers},
            "branches": {layer.name: layer.branch_norm / layer.weight_norm for layer in layers},
        }
    middle = reference([layer.relative for layer in layers])
    return gradient_by_layer(lines, band=(middle / BAND, middle * BAND) if middle > 0 else None)


def first_layer(histogram: Histogram) -> Figure:
    """The share of the first layer's weights by their gradient, a line for each loss it was taken of."""
    figure, axes = _canvas("gradient of a weight of the first layer", "share of the weights")
    for (name, counts), colour in zip(histogram.counts.items(), _colours(len(histogram.counts)), strict=True):
        shares = [count / sum(counts) for count in counts]
        axes.stairs(shares, histogram.edges, label=name, color=colour, fill=True, alpha=0.35)
        axes.stairs(shares, histogram.edges, color=colour)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    axes.xaxis.get_offset_text().set_color(INK)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def gradient_by_step(neurons: Sequence[NeuronActivity]) -> Figure:
    """Heat map of the gradient that reaches the spikes, by layer of neurons and time step, on a log scale."""
    figure, axes = _canvas("layer of neurons, from the input to the output", "time step")
    steps = max((len(neuron.gradient_by_step) for neuron in neurons), default=0)
    rows = [[_or_nan(neuron.gradient_by_step, step) for neuron in neurons] for step in range(steps)]
    positive = [value for row in rows for value in row if value > 0]
    norm = LogNorm(min(positive), max(positive)) if positive else None
    if rows:
        image = axes.imshow(rows, aspect="auto", norm=norm, cmap="viridis", origin="lower", interpolation="nearest")
        bar = figure.colorbar(image, ax=axes)
        bar.ax.tick_params(colors=INK)
        bar.outline.set_edgecolor(INK)  # type: ignore[operator]
    axes.set_yticks(range(steps), [str(step + 1) for step in range(steps)])
    _name_layers(axes, [neuron.name for neuron in neurons])
    return figure


def activity_by_layer(neurons: Sequence[NeuronActivity]) -> Figure:
    """Firing rate, share of membranes in the window, share of dead and of saturated neurons, by layer of neurons."""
    figure, axes = _canvas("layer of neurons, from the input to the output", "share")
    lines = {
        "firing rate": [neuron.firing_rate for neuron in neurons],
        "membranes in the window": [neuron.in_window for neuron in neurons],
        "dead neurons": [neuron.dead for neuron in neurons],
        "saturated neurons": [neuron.saturated for neuron in neurons],
    }
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        at = [i for i, value in enumerate(line) if value is not None]
        axes.plot(at, [line[i] for i in at], marker="o", markersize=3, label=name, color=colour)
    axes.set_ylim(-0.02, 1.02)
    _name_layers(axes, [neuron.name for neuron in neurons])
    axes.legend(frameon=False, labelcolor=INK)
    return figure


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
    figure, axes = _canvas("step", label)
    for index, ((name, points), colour) in enumerate(zip(lines.items(), _colours(len(lines)), strict=True)):
        if points:
            steps, values, low, high = zip(*points, strict=True)
            style = ("-", "--", ":")[index // len(COLOURS) % 3]
            axes.plot(steps, values, label=name, color=colour, linestyle=style, marker="o", markersize=3)
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    if any(lines.values()):
        figure.set_figheight(figure.get_figheight() + 0.17 * len(lines))
        figure.legend(loc="outside lower left", frameon=False, labelcolor=INK, fontsize=8)
    return figure


def _by_step(label: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    figure, axes = _canvas("step", label)
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot(*zip(*points, strict=True), label=name, color=colour)
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    return figure


def _canvas(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    return figure, axes


def _name_layers(axes: Axes, names: Sequence[str]) -> None:
    """Ticks with the names of the layers, some twenty of them at most."""
    every = max(1, -(-len(names) // 20))
    at = range(0, len(names), every)
    axes.set_xticks(at, [names[i] for i in at], rotation=60, ha="right", fontsize=7, color=INK)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _or_nan(values: Sequence[float], index: int) -> float:
    return values[index] if index < len(values) else float("nan")
