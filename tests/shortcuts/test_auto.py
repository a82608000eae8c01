import functools
import logging

import pytest
import torch

import shortback as sb
from shortback.health import LayerGradient, Measurement, measure
from shortback.health.judgement import BAND, reference
from shortback.losses import ShortcutLoss
from shortback.shortcuts.auto import choose_places, smallest_set
from shortback.surrogates import Triangular


def layer(name, **terms):
    weight = {"weight_norm": 1.0, "gradient_norm": 1.0, "branch_norm": 0.0, "cosine": None}
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
