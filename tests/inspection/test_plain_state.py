"""Numbers, and tensors in lists, tuples and dicts, that a module keeps in plain attributes."""

from collections import Counter, defaultdict, deque
from typing import NamedTuple

import torch
from torch import nn

import shortback as sb
from shortback.inspection.untouched import undisturbed


class Keeps(nn.Module):
    """A layer that counts its calls and keeps what it saw in containers of every kind."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.calls, self.mean, self.last, self.said = 0, 0.0, (), "nothing"
        self.seen, self.by_name, self.recent, self.sizes = [], {"x": None}, deque(maxlen=2), {0}
        self.nested = {"states": [torch.zeros(4), [torch.zeros(4)]]}
        self.running = torch.zeros(4)
        self.counts, self.groups = Counter(calls=1), defaultdict(list, first=[1])

    def forward(self, x):
        x = torch.relu(self.fc(x))
        self.calls += 1
        self.counts.update(calls=2, new=1)
        self.groups["new"].append(x)
        self.groups["first"].append(x)
        self.mean, self.last, self.said, self.late = x.mean().item(), (x, x), "something", 3
        self.seen.append(x)
        self.by_name["x"] = x
        self.by_name["y"] = x
        self.recent.append(x)
        self.sizes.add(len(x))
        self.running += x.detach()[0]
        self.nested["states"][0] = x
        self.nested["states"][1][0].add_(1)
        return x


class State(NamedTuple):
    membrane: torch.Tensor
    steps: int


class KeepsByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.state = State(torch.zeros(1), 0)

    def forward(self, x):
        self.state = State(self.state.membrane + x, self.state.steps + 1)
        return self.state.membrane.detach()


def test_a_tuple_with_names_comes_back():
    net = nn.Sequential(nn.Linear(4, 4), KeepsByName(), nn.Linear(4, 3))
    net(torch.randn(5, 4))
    before, numbers = net[1].state, net[1].state.membrane.clone()
    with undisturbed(net):
        net(torch.randn(5, 4))
    assert net[1].state is before
    net[1].state = State(before.membrane.detach(), 3)
    with undisturbed(net):
        net[1].state.membrane.add_(1)
    assert torch.equal(net[1].state.membrane, numbers)


def kept(net):
    return {name: value for name, value in net.__dict__.items() if not name.startswith("_")}


def is_as_made(layer):
    assert (layer.calls, layer.mean, layer.last, layer.said) == (0, 0.0, (), "nothing")
    assert (layer.seen, layer.by_name, list(layer.recent), layer.sizes) == ([], {"x": None}, [], {0})
    assert not hasattr(layer, "late")
    assert (layer.counts, layer.groups) == ({"calls": 1}, {"first": [1]})
    assert not layer.running.any()
    first, (second,) = layer.nested["states"]
    assert not first.any()
    assert not second.any()
    return True


def test_it_is_all_put_back_into_the_same_containers():
    layer = Keeps()
    before = kept(layer)
    with undisturbed(layer):
        layer(torch.rand(3, 4))
        assert layer.calls == 1
    assert is_as_made(layer)
    assert all(value is before[name] for name, value in kept(layer).items())
    assert layer.recent.maxlen == 2


def test_what_was_deleted_comes_back():
    layer = Keeps()
    with undisturbed(layer):
        del layer.calls, layer.seen
    assert (layer.calls, layer.seen) == (0, [])


def test_tensors_of_a_graph_stay_part_of_it():
    layer = Keeps()
    layer(torch.rand(3, 4))
    graph, states = layer.last[0], layer.nested["states"]
    with undisturbed(layer):
        layer(torch.rand(3, 4))
    assert layer.last[0] is graph is layer.seen[0]
    assert layer.nested["states"] is states
    graph.sum().backward()
    assert layer.calls == 1


def test_attach_and_diagnose_leave_it(batch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 4), Keeps(), Keeps(), Keeps(), nn.Linear(4, 3))
    x, y = torch.rand(8, 1, 12, 12), torch.arange(8) % 3
    for probed in (net, sb.attach(net, at=["2", "3"], sample=x)):
        sb.diagnose(probed, x, y)
        assert all(is_as_made(net[i]) for i in (2, 3, 4))


def test_layers_made_in_the_first_forward_stay_with_what_says_so():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.is_made, self.width = nn.ModuleList(), False, 0

        def forward(self, x):
            if not self.is_made:
                self.layers.append(nn.Linear(x.shape[1], 2))
                self.is_made, self.width, self.mask = True, x.shape[1], x
            return self.layers[0](x)

    for net in (Late(), nn.LazyLinear(2)):
        with undisturbed(net):
            expected = net(torch.ones(1, 3))
        assert torch.equal(net(torch.ones(1, 3)), expected)
        assert len(list(net.parameters())) == 2
    late = Late()
    with undisturbed(late):
        late(torch.ones(1, 3))
    assert (late.is_made, late.width) == (True, 3)
    assert not hasattr(late, "mask")  # a tensor
