import functools
import logging

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.health import LayerGradient, Measurement, measure
from shortback.health.judgement import BAND, reference
from shortback.health.measurement import MAIN
from shortback.losses import ShortcutLoss
from shortback.shortcuts.auto import choose_places, smallest_set
from shortback.shortcuts.places import find_places
from shortback.surrogates import Triangular


def layer(name, *, main, **terms):
    weight = {"weight_norm": 1.0, "gradient_norm": 1.0, "branch_norm": 0.0, "cosine": None}
    terms = {MAIN: main, **terms}
    return LayerGradient(name, "Conv2d", terms=terms, num_weights=1, num_zero=0, num_nan=0, num_inf=0, **weight)


def measured(*layers):
    return Measurement(list(layers), [], 0.0, {}, 1.0, 2, [])


def test_the_fewest_that_bring_all_inside():
    """The band ends at 0.01. b reaches all three faint layers, a two of them, c none."""
    layers = [
        layer("1", main=1e-6, a=0.5, b=0.02, c=1e-5),
        layer("2", main=1e-5, a=0.5, b=0.02, c=1e-5),
        layer("3", main=1e-3, a=0.0, b=0.02, c=1e-3),
        layer("4", main=1.0, a=0.0, b=0.0, c=0.5),
        layer("5", main=1.0, a=0.0, b=0.0, c=0.0),
        layer("6", main=1.0, a=0.0, b=0.0, c=0.0),
    ]
    assert smallest_set(measured(*layers), ["a", "b", "c"]) == (["b"], [])
    assert smallest_set(measured(*layers), ["a", "c"]) == (["a"], ["3"])
    assert smallest_set(measured(*layers[3:]), ["a", "b", "c"]) == ([], [])


def vanishing(batch):
    torch.manual_seed(0)
    neuron = functools.partial(sb.LIF, surrogate=Triangular(half_width=0.2, scale="peak"), backend="reference")
    return sb.create_model("resnet32", width=0.5, num_steps=2, in_channels=1, residual="plain", neuron=neuron)


def test_the_branches_chosen_bring_the_layers_inside(batch):
    x, y = batch
    model = vanilla = vanishing(batch)
    places = choose_places(model, x)
    assert 0 < len(places) < 14
    net = sb.attach(model, at="auto", sample=x)
    assert list(net.places) == places
    before = [layer.relative for layer in measure(vanilla, x, y, loss=ShortcutLoss(), coefficient=0.0).layers]
    after = [layer.relative for layer in measure(net, x, y, loss=ShortcutLoss(), coefficient=1.0).layers]
    lowest = reference(before) / BAND
    assert sum(r < lowest for r in before) > 5
    assert sum(r < lowest / 2 for r in after) == 0  # measured with other classes than it was chosen by


def test_it_says_so_where_no_branch_is_needed(make_network, batch, caplog):
    x, _ = batch
    with caplog.at_level(logging.WARNING, "shortback"):
        places = choose_places(make_network(), x)
    assert places == ["layer2.1"]
    assert "no layer's gradient fades" in caplog.text


@pytest.mark.parametrize("steps", [False, True])
def test_it_leaves_the_network_as_it_was(make_network, batch, steps):
    x, _ = batch
    x = torch.stack([x, x]) if steps else x
    model = make_network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    choose_places(model, x)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class Named(nn.Module):
    """Four blocks, of which the first has a name that is given."""

    def __init__(self, first):
        super().__init__()
        torch.manual_seed(0)
        neuron = functools.partial(sb.LIF, 2, surrogate=Triangular(half_width=0.05, scale="peak"), backend="reference")
        self.names = [first, "b", "c", "d"]
        for name, channels in zip(self.names, (1, 8, 8, 8), strict=True):
            conv = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
            self.add_module(name, nn.Sequential(conv, nn.BatchNorm2d(8), neuron()))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        for name in self.names:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean((2, 3)))


def test_a_block_may_be_called_main(batch):
    x, y = batch
    seen = {}
    for first in ("main", "a"):
        net = sb.attach(sb.SpikingNetwork(Named(first), num_steps=2), at="blocks", sample=x)
        assert net.places == (first, "b", "c")
        measured = measure(net, x, y, loss=ShortcutLoss(combine="additive"), coefficient=1.0)
        terms = ShortcutLoss()(net.train()(x), y, coefficient=1.0)
        assert list(measured.losses) == [MAIN, first, "b", "c"]
        assert measured.losses[MAIN] == pytest.approx(terms.main.item(), rel=1e-5)
        assert measured.losses[first] == pytest.approx(terms.branches[first].item(), rel=1e-5)
        layer = measured.layers[0]
        assert list(layer.terms) == [*net.places, MAIN]
        chosen = sb.attach(sb.strip(net), at="auto", sample=x).places
        seen[first] = *measured.losses.values(), *layer.terms.values(), [place.replace(first, "-") for place in chosen]
    assert seen["main"] == seen["a"]
    assert list(find_places(Named("main"), ["main"])) == ["main"]


def test_where_no_layer_has_a_gradient_none_is_said_to_be_fine(make_network, batch, caplog):
    net = make_network()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    choose_places(net, batch[0])
    assert "the last layers have no gradient, so no layer's can be judged" in caplog.text
