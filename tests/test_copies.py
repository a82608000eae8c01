"""Networks that keep a tensor of a graph, which PyTorch does not copy."""

import copy
import functools
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from shortback.copies import deep_copy, shared_copy, tensors_in
from shortback.neurons import LIF
from shortback.spiking.spikify import spikify


def pruned(layer):
    return prune.l1_unstructured(layer, "weight", 0.3)


def old_weight_norm(layer):
    with warnings.catch_warnings(action="ignore"):  # it is on its way out of PyTorch
        return weight_norm(layer)


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), norm(nn.Conv2d(8, 8, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )


@pytest.fixture
def x():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("norm", [old_weight_norm, pruned, spectral_norm, parametrizations.weight_norm])
def test_layers_whose_weight_is_computed_are_copied_and_made_spiking(norm, called, x):
    net = network(norm).eval()
    if called:
        net(x)
    for copied in (deep_copy(net), shared_copy(net)):
        torch.testing.assert_close(copied(x), net(x))
    model = spikify(net, num_steps=2, neuron=functools.partial(LIF, backend="reference", threshold=0.1))
    assert model.expands_at == "neuron"
    before = [p.clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))  # a copy shares nothing
    assert not torch.equal(next(iter(model.parameters())), before[0])


def test_what_pytorch_copies_is_copied_as_it_does(x):
    net = network(lambda layer: layer)
    torch.testing.assert_close(deep_copy(net)(x), copy.deepcopy(net)(x))
    shared = shared_copy(net)
    assert all(a is b for a, b in zip(shared.parameters(), net.parameters(), strict=True))


class KeepsFeatures(nn.Module):
    """Keeps what a layer returned, in a list."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.fc, self.features = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(144, 5), []

    def forward(self, x):
        x = self.conv(x)
        self.features = [x]
        return self.fc(self.act(x).flatten(1))


def test_a_network_that_has_run_and_keeps_features_in_a_list_is_copied_and_made_spiking(x):
    net = KeepsFeatures()
    expected = net(x)
    for copied in (deep_copy(net), shared_copy(net)):
        torch.testing.assert_close(copied(x), expected)
    model = spikify(net, num_steps=2, neuron=functools.partial(LIF, backend="reference"))
    assert model.expands_at == "neuron"
    model(x)
    model.num_steps = 3  # traced again
    assert model.expands_at == "neuron"


def test_containers_that_hold_each_other_end():
    one, two = torch.ones(1), torch.ones(2)
    around = [one, {"x": (two,)}]
    around.append(around)
    assert list(map(id, tensors_in(around))) == [id(one), id(two)]
    assert list(tensors_in((around, around))) == [one, two]
