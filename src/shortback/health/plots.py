"""Plots of gradient health, as matplotlib figures to save or to embed in a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from shortback.health.activity import NeuronActivity
from shortback.health.judgement import BAND, reference
from shortback.health.measurement import Histogram, Measurement

INK = "#767676"  # readable on white and on black backgrounds
COLOURS = ("#1f77b4", "#e07a1f", "#2f9e44", "#c2255c", "#7048e8", "#0c8599")


def pictures(measured: Measurement) -> dict[str, tuple[Figure, str]]:
    """Draw all figures of a measurement; returns them by title, each with a description in words."""
    found = {
        "Gradient by layer": (of_layers(measured), "Gradient over weight by layer; the band of a factor 100 is shaded.")
    }
    if measured.first_layer is not None:
        found["Gradient of the first layer"] = (
            first_layer(measured.first_layer),
            "Histogram of the gradient over the weights of the first layer (figure 2 of the paper).",
        )
    if measured.neurons:
        found["Gradient by layer and time step"] = (
            gradient_by_step(measured.neurons),
            "Norm of the gradient that reaches the spikes, by layer of neurons and time step.",
        )
        found["What the neurons do"] = (
            activity_by_layer(measured.neurons),
            "Firing rate, membranes inside the surrogate's window, dead and saturated neurons, by layer.",
        )
    return found


def gradient_by_layer(
    gradients: Mapping[str, Mapping[str, float]], *, band: tuple[float, float] | None = None
) -> Figure:
    """Plot gradient over weight by layer on a log scale; layers without a gradient are left out.

    Args:
        gradients: by the name of each line, its values by layer in forward order; layers may differ between lines.
        band: lower and upper end of a shaded band.
    """
    figure, axes = canvas("layer, from the input to the output", "gradient over weight")
    layers = list(dict.fromkeys(layer for line in gradients.values() for layer in line))
    for (name, line), colour in zip(gradients.items(), colours(len(gradients)), strict=True):
        at = [i for i, layer in enumerate(layers) if line.get(layer)]
        axes.plot(at, [line[layers[i]] for i in at], marker="o", markersize=3, label=name, color=colour)
    axes.set_yscale("log")
    if band is not None:
        axes.axhspan(*band, color=INK, alpha=0.12, linewidth=0)
    _name_layers(axes, layers)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def of_layers(measured: Measurement) -> Figure:
    """`gradient_by_layer` of the whole loss and, if there are branches, of vanilla training and of the branches."""
    layers = [layer for layer in measured.layers if layer.weight_norm]
    whole = {layer.name: layer.relative for layer in layers}
    lines = {"whole loss": whole}
    if any(layer.branch_norm for layer in layers):
        vanilla = {n.name: n.vanilla_norm / n.weight_norm for n in layers if n.vanilla_norm is not None}
        lines = {
            "shortcut (whole loss)": whole,
            **({"vanilla (loss of the main output)": vanilla} if vanilla else {}),
            "branches": {layer.name: layer.branch_norm / layer.weight_norm for layer in layers},
        }
    middle = reference([layer.relative for layer in layers])
    return gradient_by_layer(lines, band=(middle / BAND, middle * BAND) if 0 < middle < math.inf else None)


def first_layer(histogram: Histogram) -> Figure:
    """Plot the histograms of the first layer's gradient, as shares of its weights, one outline for each loss."""
    figure, axes = canvas("gradient of a weight of the first layer", "share of the weights")
    for (name, counts), colour in zip(histogram.counts.items(), colours(len(histogram.counts)), strict=True):
        shares = [count / sum(counts) for count in counts]
        axes.stairs(shares, histogram.edges, label=name, color=colour, fill=True, alpha=0.35)
        axes.stairs(shares, histogram.edges, color=colour)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    axes.xaxis.get_offset_text().set_color(INK)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def gradient_by_step(neurons: Sequence[NeuronActivity]) -> Figure:
    """Plot a heat map of the gradient that reaches the spikes, by layer of neurons and time step, on a log scale."""
    figure, axes = canvas("layer of neurons, from the input to the output", "time step")
    steps = max((len(neuron.gradient_by_step) for neuron in neurons), default=0)
    rows = [[_or_nan(neuron.gradient_by_step, step) for neuron in neurons] for step in range(steps)]
    positive = [value for row in rows for value in row if 0 < value < math.inf]
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
    """Plot firing rate and the shares of membranes in the window, dead and saturated neurons, by layer of neurons."""
    figure, axes = canvas("layer of neurons, from the input to the output", "share")
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


def canvas(x: str, y: str) -> tuple[Figure, Axes]:
    """Make an empty figure with labelled axes, readable on white and on black backgrounds."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    frame(axes, x, y)
    return figure, axes


def frame(axes: Axes, x: str, y: str) -> None:
    """Label and style the axes of a figure or subplot in the colour `INK`."""
    axes.patch.set_alpha(0)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)


def _name_layers(axes: Axes, names: Sequence[str]) -> None:
    """Label the ticks with the names of the layers, at most some twenty."""
    every = max(1, -(-len(names) // 20))
    at = range(0, len(names), every)
    axes.set_xticks(at, [names[i] for i in at], rotation=60, ha="right", fontsize=7, color=INK)


def colours(count: int) -> list[str]:
    """The colours for `count` lines, repeated if there are more lines than colours."""
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _or_nan(values: Sequence[float], index: int) -> float:
    return values[index] if index < len(values) else float("nan")
