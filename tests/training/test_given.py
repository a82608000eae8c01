"""A network is given back as it was, but for what it learned."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.neurons import LIF
from shortback.spiking import SpikingNetwork
from shortback.training import Execution, build_fabric, choose_execution
from shortback.training.given import NetworkInTraining


def lent(net, **settings):
    execution = choose_execution(device="cpu", precision="fp32", **settings)
    return NetworkInTraining(net, execution=execution, fabric=build_fabric(execution))


def chosen(net):
    neurons = [(m.backend, m.memory) for m in net.modules() if isinstance(m, LIF)]
    return neurons, [m.memory for m in net.modules() if isinstance(m, SpikingNetwork)]


def test_how_neurons_run_is_put_back_after_an_error_alone(make_network):
    net = make_network(backend="auto")
    net.memory = "fast"
    first = next(m for m in net.modules() if isinstance(m, LIF))
    first.backend, first.memory = "compiled", "small"
    before = chosen(net)
    off = lent(net, compile="off")
    off.prepare()
    assert {backend for backend, _ in chosen(net)[0]} == {"reference"}
    off.put_back()
    assert {backend for backend, _ in chosen(net)[0]} == {"reference"}
    with pytest.raises(KeyError), off.put_back_after_an_error():
        raise KeyError
    assert chosen(net) == before
    small = lent(net, compile="neuron", memory="small")
    small.prepare()
    assert {memory for _, memory in chosen(net)[0]} == {"small"}
    with pytest.raises(KeyError), small.put_back_after_an_error():
        raise KeyError
    assert chosen(net) == before


def test_convolutions_are_put_back_after_an_error_too():
    net = nn.Sequential(nn.Conv2d(1, 4, 1, stride=2))
    given = lent(net)
    given.prepare()
    assert "_conv_forward" in net[0].__dict__
    with pytest.raises(KeyError), given.put_back_after_an_error():
        raise KeyError
    assert "_conv_forward" not in net[0].__dict__


def test_convolutions_elsewhere_than_on_a_cpu_are_left_alone():
    net = nn.Sequential(nn.Conv2d(1, 4, 1, stride=2))
    fabric = SimpleNamespace(world_size=1, device=torch.device("cuda"), setup_module=lambda module: module)
    execution = Execution(device="cuda", precision="fp32", channels_last=False, compile="off")
    NetworkInTraining(net, execution=execution, fabric=fabric).prepare()
    assert "_conv_forward" not in net[0].__dict__


def test_branches_with_heads_that_are_frozen_are_there_again_too(make_network):
    net = sb.attach(make_network(), at="stages", sample=torch.zeros(2, 1, 12, 12))
    net.heads.requires_grad_(False)
    given = lent(net)
    given.prepare()
    given.drop_branches()
    assert not net.branches_enabled
    given.put_back()
    assert net.branches_enabled
    assert not any(p.requires_grad for p in net.heads.parameters())
    net.branches_enabled = False  # by its user, and so it stays
    given = lent(net)
    given.prepare()
    assert given.drop_branches() is None
    given.put_back()
    assert not net.branches_enabled


def test_branches_are_dropped_once_and_there_again(make_network):
    net = sb.attach(make_network(), at="stages", sample=torch.zeros(2, 1, 12, 12))
    frozen = next(net.heads.parameters()).requires_grad_(False)
    given = lent(net)
    given.prepare()
    for _ in range(2):
        assert given.drop_branches() is None  # one process: the same module goes on
        assert not net.branches_enabled
        assert not any(p.requires_grad for p in net.heads.parameters())
    given.put_back()
    assert net.branches_enabled
    assert [p for p in net.heads.parameters() if not p.requires_grad] == [frozen]
