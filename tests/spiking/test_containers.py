"""Activations in ordinary containers are replaced where they are registered too, and told of otherwise."""

import functools
import logging
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shortback.neurons import LIF
from shortback.spiking.spikify import spikify

NEURON = functools.partial(LIF, backend="reference", threshold=0.1)


class Pair(NamedTuple):
    layer: nn.Module
    act: nn.Module


class Chain(nn.Module):
    """Two layers with activations, and whatever `build` makes of them."""

    def __init__(self, build):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.act1, self.conv2, self.act2 = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        self.fc = nn.Linear(8, 5)
        build(self)

    def layers(self):
        return (self.conv1, self.act1, self.conv2, self.act2)

    def chained(self):
        return self.layers()

    def forward(self, x):
        for layer in self.chained():
            x = layer(x)
        return self.fc(x.mean((2, 3)))


class ByAttributes(Chain):
    pass


class ByList(Chain):
    def chained(self):
        return self.held


class ByDict(Chain):
    def chained(self):
        return [self.held[name] for name in "abcd"]


class ByPairs(Chain):
    def chained(self):
        return [layer for pair in self.held for layer in pair]


def holds(make):
    return lambda net: setattr(net, "held", make(*net.layers()))


@pytest.mark.parametrize(
    "network",
    [
        ByList(holds(lambda *layers: list(layers))),
        ByList(holds(lambda *layers: layers)),
        ByDict(holds(lambda *layers: dict(zip("abcd", layers, strict=True)))),
        ByPairs(holds(lambda a, b, c, d: [(a, b), [c, d]])),
        ByPairs(holds(lambda a, b, c, d: (Pair(a, b), Pair(c, d)))),
    ],
    ids=["list", "tuple", "dict", "nested", "named"],
)
def test_what_is_registered_is_replaced_in_containers_too(network):
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = spikify(ByAttributes(lambda net: None), num_steps=2, neuron=NEURON)(x)
    before = network(x)
    torch.testing.assert_close(spikify(network, num_steps=2, neuron=NEURON)(x), expected)
    assert torch.equal(network(x), before)  # the ANN is left as it is
    assert not torch.allclose(expected, before)


def test_what_is_not_registered_or_a_function_stays_with_a_warning_of_where_it_is(caplog):
    def build(net):
        net.acts, net.fns = [nn.ReLU(), nn.Sequential(nn.Conv2d(3, 3, 1), nn.GELU())], {"relu": F.relu, "no": F.pad}
        net.deep = ({"x": [functools.partial(F.leaky_relu, negative_slope=0.1)]},)
        net.__dict__["hidden"] = nn.SiLU()
        net.classes, net.same = [nn.ReLU, torch.sigmoid], [net.act1]
        net.same.append(net.same)

    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = spikify(ByAttributes(lambda net: None), num_steps=2, neuron=NEURON)(x)
    with caplog.at_level(logging.WARNING, "shortback"):
        spiking = spikify(ByAttributes(build), num_steps=2, neuron=NEURON)
    torch.testing.assert_close(spiking(x), expected)
    network = spiking.network
    assert type(network.acts[0]) is nn.ReLU
    assert network.fns["relu"] is F.relu
    assert network.same[0] is network.act1
    assert isinstance(network.act1, LIF)
    (record,) = caplog.records
    lines = record.getMessage().split("\n")
    assert lines[0] == "spikify() left unchanged the activations that ByAttributes keeps outside of its modules:"
    assert [line.strip() for line in lines[1:-1]] == [
        "acts[0] is a ReLU that is not registered",
        "acts[1] is a Sequential that is not registered",
        "fns['relu'] is the function relu",
        "deep[0]['x'][0] is the function leaky_relu",
        "hidden is a SiLU that is not registered",
    ]
    assert lines[-1].startswith("If forward uses one, make it a module that is registered: nn.ReLU() in an attribute")


def test_a_teacher_that_is_not_registered_is_not_spikified(caplog):
    def build(net):
        net.teacher = [ByAttributes(lambda net: None)]

    net, x = ByAttributes(build), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with caplog.at_level(logging.WARNING, "shortback"):
        spiking = spikify(net, num_steps=2, neuron=NEURON)
    assert torch.equal(spiking.network.teacher[0](x), net.teacher[0](x))
    (record,) = caplog.records
    assert "\n  teacher[0] is a ByAttributes that is not registered\n" in record.getMessage()


def test_a_network_whose_activations_are_all_outside_of_its_modules_is_refused():
    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.acts = nn.Linear(3, 3), [nn.ReLU()]

        def forward(self, x):
            return self.acts[0](self.fc(x))

    with pytest.raises(
        ValueError, match=r"holds no activation to replace.*\n  acts\[0\] is a ReLU that is not registered"
    ):
        spikify(Outside(), num_steps=2)
