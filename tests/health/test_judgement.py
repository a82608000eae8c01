import dataclasses
import functools
import math

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.health import judge, measure
from shortback.health.activity import NeuronActivity
from shortback.health.judgement import effective_depth, factors, reference, slope
from shortback.health.measurement import LayerGradient, Measurement
from shortback.losses import ShortcutLoss
from shortback.surrogates import Arctan, Triangular


def judged(net, *, num_samples=16, channels=1, size=12):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_samples, channels, size, size, generator=generator)
    y = torch.randint(0, 10, (num_samples,), generator=generator)
    seen = measure(net, x, y, loss=ShortcutLoss(), coefficient=0.0, backend="reference")
    return judge(seen), seen


def network(name="resnet20", *, neuron, **settings):
    torch.manual_seed(0)
    settings = {"width": 0.5, "num_steps": 2, "in_channels": 1, **settings}
    return sb.create_model(name, neuron=functools.partial(sb.LIF, **neuron), **settings)


def test_numbers_by_hand():
    relative = [1000.0, 100.0, 10.0, 1.0]
    assert slope(relative) == pytest.approx(1.0)
    assert slope([0.0, 1.0, 10.0]) == pytest.approx(-1.0)
    assert math.isnan(slope([0.0, 1.0]))
    assert effective_depth(relative) == 4
    assert effective_depth([1e6, 1e5, 1.0, 1.0, 1.0]) == 3
    assert effective_depth([0.0, 0.0, 0.0]) == 0
    _, seen = judged(network(neuron={}))
    for i, factor in enumerate(factors(seen.layers)[:-1]):
        assert factor == pytest.approx(seen.layers[i].relative / seen.layers[i + 1].relative)


def test_a_network_that_learns_is_healthy():
    judgement, seen = judged(network(neuron={}))
    assert (judgement.verdict, judgement.layer) == ("healthy", None)
    assert judgement.effective_depth == judgement.num_layers == len(seen.layers) == 22


def test_a_narrow_surrogate_of_unit_peak_vanishes():
    neuron = {"surrogate": Triangular(half_width=0.2, scale="peak")}
    judgement, seen = judged(network("resnet32", neuron=neuron, residual="plain"))
    assert judgement.verdict == "vanishing"
    assert judgement.slope < -0.05
    assert judgement.effective_depth < judgement.num_layers
    names = [layer.name for layer in seen.layers]
    assert judgement.layer in names
    assert seen.layers[0].relative < 1e-2 * seen.layers[-1].relative


class Deep(nn.Module):
    """Twelve layers without a norm, whose weights are small."""

    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(12):
            layers += [nn.Linear(64, 64), sb.LIF(2, surrogate=Arctan(slope=4.0, scale="peak"), backend="reference")]
        self.layers, self.out = nn.Sequential(*layers), nn.Linear(64, 10)
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.06)
                nn.init.constant_(module.bias, 0.8)

    def forward(self, x):
        return self.out(self.layers(x.flatten(1).repeat(2, 1)).unflatten(0, (2, -1)).mean(0))


def test_small_weights_without_a_norm_vanish():
    torch.manual_seed(0)
    judgement, _ = judged(Deep(), size=8)
    assert judgement.verdict == "vanishing"
    assert "times" not in judgement.reason


def test_a_narrow_surrogate_of_unit_area_explodes():
    judgement, seen = judged(network("resnet32", neuron={"surrogate": Triangular(half_width=0.4)}, residual="plain"))
    assert judgement.verdict == "exploding"
    assert judgement.slope > 0.05
    assert seen.layers[0].relative > 1e2 * seen.layers[-2].relative


def test_out_of_reach_it_is_dead():
    judgement, seen = judged(network(neuron={"threshold": 50.0}))
    assert judgement.verdict == "dead"
    assert judgement.layer == seen.neurons[0].name
    assert all(neuron.firing_rate == 0 for neuron in seen.neurons)


def test_below_everything_it_is_saturated():
    net = network(neuron={})
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.bias.fill_(50)
    judgement, seen = judged(net)
    assert judgement.verdict == "saturated"
    assert judgement.layer == seen.neurons[0].name
    assert all(neuron.firing_rate == 1 for neuron in seen.neurons)


def test_what_is_not_finite_is_found_nearest_to_the_loss():
    net = network(neuron={})
    with torch.no_grad():
        net.network.fc.bias[0] = math.inf
    judgement, _ = judged(net)
    assert (judgement.verdict, judgement.layer) == ("not finite", "fc")


def test_weights_that_are_all_0_have_no_say():
    """A classifier that starts at 0 has a gradient, but none over its weights, and what is before it has none yet."""
    net = network(neuron={"backend": "reference"})
    torch.nn.init.zeros_(net.network.fc.weight)
    judgement, seen = judged(net, num_samples=4)
    assert judgement.verdict == "dead"
    assert judgement.layer == seen.layers[-2].name
    assert judgement.reason.endswith(
        "the weights of fc are all 0 and let no gradient through until they are first updated"
    )
    assert all(neuron.in_window for neuron in seen.neurons)
    assert judgement.effective_depth == 0
    assert judgement.num_layers == len(seen.layers) - 1
    assert effective_depth([]) == 0
    assert reference([]) == 0


def layer(name, gradient, *, weight=1.0):
    zero = 0 if gradient else 4
    return LayerGradient(name, "Linear", weight, gradient, {"main": gradient}, 0.0, None, 4, zero, 0, 0)


def neuron(name, *, dead=0.0, in_window: float | None = 0.5):
    return NeuronActivity(name, "LIF", 0.2, dead, 0.0, in_window, 0, [1.0])


AFTER = "no gradient comes through the layers after them"


@pytest.mark.parametrize(
    ("layers", "neurons", "why"),
    [
        ([layer("a", 0.0), layer("b", 1.0)], [neuron("n")], AFTER),
        (
            [layer("a", 0.0), layer("b", 1.0)],
            [neuron("n", in_window=None)],
            "no gradient comes through the layers after them",
        ),
        ([layer("a", 0.0), layer("b", 1.0)], [neuron("n", in_window=0.0)], "no membrane of n is inside the surrogate"),
        (
            [layer("a", 0.0), layer("b", 1.0, weight=0.0)],
            [neuron("n")],
            "the weights of b are all 0 and let no gradient",
        ),
        (
            [layer("a", 0.0), layer("b", 0.0, weight=0.0)],
            [neuron("n")],
            "all 0 and let no gradient through, and have none",
        ),
        # Weights of 0 behind a layer that has a gradient are not why one before it has none.
        ([layer("a", 0.0), layer("b", 1.0), layer("c", 1.0, weight=0.0)], [neuron("n")], "no gradient comes through"),
    ],
)
def test_the_reason_for_no_gradient_is_one_that_was_seen(layers, neurons, why):
    judgement = judge(Measurement(layers, neurons, 1.0, {"main": 1.0}, 0.0, 8, []))
    assert (judgement.verdict, judgement.layer) == ("dead", "a")
    assert why in judgement.reason


def test_a_network_whose_weights_are_all_0_is_judged_too():
    net = nn.Linear(3, 3)
    torch.nn.init.zeros_(net.weight)
    x, y = torch.randn(4, 3), torch.arange(4) % 3
    judged = judge(measure(net, x, y, loss=sb.ShortcutLoss(), coefficient=0.0))
    assert judged.verdict == "healthy"  # one step ends it
    assert "every weight is 0" in judged.reason
    deep = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    for weight in deep.parameters():
        torch.nn.init.zeros_(weight)
    judged = judge(measure(deep, x, y, loss=sb.ShortcutLoss(), coefficient=0.0))
    assert (judged.verdict, judged.layer, judged.num_layers) == ("dead", "2", 0)
    assert judged.reason.startswith("no gradient at all in 2 of 2 layers, from 2 to 0: no gradient comes through")
    stuck = [layer("a", 1.0), layer("b", 0.0, weight=0.0), layer("c", 0.0, weight=0.0)]  # of a branch that never starts
    judged = judge(Measurement(stuck, [neuron("n")], 1.0, {"main": 1.0}, 0.0, 8, []))
    assert (judged.verdict, judged.layer) == ("dead", "c")


def test_layers_whose_weights_are_all_0_are_in_neither_count():
    """As for the last layer of a residual branch that starts at 0, which has a gradient and is updated first."""
    layers = [layer("a", 1.0), layer("b", 1.0), layer("c", 1.0, weight=0.0)]
    judged = judge(Measurement(layers, [neuron("n")], 1.0, {"main": 1.0}, 0.0, 8, []))
    assert (judged.verdict, judged.effective_depth, judged.num_layers) == ("healthy", 2, 2)
    layers[-1] = dataclasses.replace(layers[-1], num_nan=1)
    judged = judge(Measurement(layers, [neuron("n")], 1.0, {"main": 1.0}, 0.0, 8, []))
    assert (judged.verdict, judged.layer) == ("not finite", "c")


def test_behind_a_silent_neuron_it_is_named():
    def lif(threshold):
        return sb.LIF(1, threshold=threshold, backend="reference")

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), lif(0.1), nn.Linear(6, 6), lif(0.1), nn.Linear(6, 6), lif(1e6))
    net.append(nn.Linear(6, 3))
    judged = judge(measure(net, torch.randn(8, 4), torch.arange(8) % 3, loss=sb.ShortcutLoss(), coefficient=0.0))
    assert judged.verdict == "dead"
    assert judged.layer == "6"
    assert "from 6 to 0: 5 never fires on this batch" in judged.reason


def test_a_readout_that_never_fires_is_not_dead_where_its_spikes_reach_no_loss():
    """As the last neurons of a network whose output is their membrane."""
    layers, readout = [layer("a", 1.0), layer("b", 1.0)], neuron("readout", dead=1.0)
    unused = dataclasses.replace(readout, gradient_by_step=[0.0])
    verdicts = [
        judge(Measurement(layers, [neuron("n"), neuron("m"), last], 1.0, {"main": 1.0}, 0.0, 8, [])).verdict
        for last in (readout, unused)
    ]
    assert verdicts == ["dead", "healthy"]


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (150.0, "exploding: from a on; only just, by a factor of 1.50 at most, in 1 of 5 layers"),
        (0.008, "vanishing: from a on; only just, by a factor of 1.25 at most, in 1 of 5 layers"),
        (250.0, "exploding: from a on"),
        (0.001, "vanishing: from a on"),
    ],
)
def test_what_is_only_just_out_of_the_band_is_said_to_be(first, said):
    layers = [layer("a", first), *(layer(name, 1.0) for name in "bcde")]
    judgement = judge(Measurement(layers, [neuron("n")], 1.0, {"main": 1.0}, 0.0, 8, []))
    _, _, end = judgement.reason.partition("out of the band of 100 ")
    assert f"{judgement.verdict}: {end}" == said


def test_a_layer_whose_weights_are_all_0_stands_between_no_factors():
    zero, dead = layer("zero", 1.0, weight=0.0), layer("dead", 0.0)
    assert factors([layer("a", 8.0), zero, layer("c", 2.0), dead, layer("e", 1.0)]) == [4.0, None, None, 0.0, None]
    assert factors([]) == []
