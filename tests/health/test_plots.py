import dataclasses
import io
import itertools
import math

import pytest

import shortback as sb
from shortback.health import GradientReport, measure, plots
from shortback.losses import ShortcutLoss


@pytest.fixture
def report(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at="blocks", sample=x)
    return GradientReport.of(measure(net, x, y, loss=ShortcutLoss(), coefficient=1.0))


def line(figure, label):
    (found,) = [one for one in figure.axes[0].get_lines() if one.get_label() == label]
    return list(found.get_ydata())


def test_the_lines_are_the_numbers_of_the_report(report):
    figure = plots.of_layers(report.measurement)
    assert line(figure, "shortcut (whole loss)") == [layer.relative for layer in report.layers]
    vanilla = [layer.vanilla_norm / layer.weight_norm for layer in report.layers]
    assert line(figure, "vanilla (loss of the main output)") == vanilla
    assert figure.axes[0].get_yscale() == "log"

    figure = plots.activity_by_layer(report.neurons)
    assert line(figure, "firing rate") == [neuron.firing_rate for neuron in report.neurons]
    assert line(figure, "membranes in the window") == [neuron.in_window for neuron in report.neurons]

    (image,) = plots.gradient_by_step(report.neurons).axes[0].get_images()
    assert image.get_array().tolist() == [
        [neuron.gradient_by_step[step] for neuron in report.neurons] for step in range(2)
    ]


def test_a_network_without_branches_has_one_line_however_it_was_trained(make_network, batch):
    measured = measure(make_network(), *batch, loss=ShortcutLoss(), coefficient=0.0)
    assert line(plots.of_layers(measured), "whole loss") == [layer.relative for layer in measured.layers]


def test_the_first_layer_has_a_histogram_of_each(report):
    """Figure 2 of the paper: the share of the weights in every bin, which add up to 1."""
    axes = plots.first_layer(report.measurement.first_layer).axes[0]
    filled = {patch.get_label(): patch for patch in axes.patches if patch.get_label()}
    counts = report.measurement.first_layer.counts
    assert list(filled) == list(counts) == ["vanilla", "whole loss"]
    for name, patch in filled.items():
        values, edges, _ = patch.get_data()
        assert sum(values) == pytest.approx(1.0)
        assert list(values) == pytest.approx([count / sum(counts[name]) for count in counts[name]])
        assert list(edges) == report.measurement.first_layer.edges
    assert list(report.plots) == list(plots.pictures(report.measurement))


def test_layers_without_a_gradient_leave_a_gap():
    figure = plots.gradient_by_layer({"one": {"a": 0.0, "b": 1.0}, "other": {"a": 2.0, "c": 3.0}})
    points = {one.get_label(): list(zip(one.get_xdata(), one.get_ydata(), strict=True)) for one in figure.axes[0].lines}
    assert points == {"one": [(1, 1.0)], "other": [(0, 2.0), (2, 3.0)]}
    assert len(set(itertools.chain(*points.values()))) == 3


def test_gradients_that_are_not_finite_are_left_out(report):
    first, *rest = report.neurons
    for values in ([math.inf, 1.0], [math.nan, 1.0], [math.inf, math.inf]):
        neurons = [dataclasses.replace(first, gradient_by_step=values), *rest]
        plots.gradient_by_step(neurons).savefig(io.BytesIO())
    layers = [dataclasses.replace(layer, gradient_norm=math.inf) for layer in report.layers]
    plots.of_layers(dataclasses.replace(report.measurement, layers=layers)).savefig(io.BytesIO())
