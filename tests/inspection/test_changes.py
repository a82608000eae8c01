"""A run with one feature of a layer changed says where it is seen, and leaves weights as they were."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection.changes import Changes
from shortback.inspection.layout import first_tensor


class Table(nn.Module):
    """Positions that are learned: it returns its own parameter, or a part of it."""

    def __init__(self, num_tokens, num_features):
        super().__init__()
        self.num_features, self.weight = num_features, nn.Parameter(torch.zeros(num_tokens, num_features))

    def forward(self, x):
        return self.weight if x.shape[1] == len(self.weight) else self.weight[: x.shape[1]]


class WithTable(nn.Module):
    def __init__(self, num_positions):
        super().__init__()
        self.linear, self.act, self.table = nn.Linear(12, 12), nn.ReLU(), Table(num_positions, 12)

    def forward(self, x):
        return self.act(self.linear(x)) + self.table(x)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


@pytest.mark.parametrize("num_positions", [12, 16])
def test_a_layer_that_returns_its_parameter_keeps_it(num_positions):
    torch.manual_seed(0)
    net = nn.Sequential(WithTable(num_positions), WithTable(num_positions), Mean(), nn.Linear(12, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    versions = [parameter._version for parameter in net.parameters()]
    branched = sb.attach(net, at=["0", "1"], sample=torch.randn(4, 12, 12))
    assert [tap.features_at for tap in branched.taps] == [2, 2]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [parameter._version for parameter in net.parameters()] == versions


class ExpandedGate(nn.Conv2d):
    """A gate of each channel, as a view that is as large as the image."""

    def forward(self, x):
        return super().forward(x.mean((2, 3), keepdim=True)).sigmoid().expand(-1, -1, *x.shape[2:])


class Gated(nn.Module):
    def __init__(self, num_inputs):
        super().__init__()
        self.conv, self.act, self.gate = nn.Conv2d(num_inputs, 5, 3, padding=1), nn.ReLU(), ExpandedGate(5, 5, 1)

    def forward(self, x):
        y = self.act(self.conv(x))
        return torch.cat([x, y * self.gate(y)], 1)


def test_a_layer_may_return_an_expanded_tensor():
    torch.manual_seed(0)
    net = nn.Sequential(Gated(3), Gated(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, 3))
    branched = sb.attach(net, at=["0", "1"], sample=torch.rand(4, 3, 8, 8))
    assert [tap.features_at for tap in branched.taps] == [1, 1]


class Pair(NamedTuple):
    values: torch.Tensor
    state: int


class Returning(nn.Linear):
    def __init__(self, make):
        super().__init__(5, 6)
        self.make, self.kept = make, []

    def forward(self, x):
        self.kept.append(super().forward(x))
        return self.make(self.kept[-1])


class Unpacking(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.layer, self.got = Returning(make), []

    def forward(self, x):
        self.got.append(self.layer(x))
        return 2 * first_tensor(self.got[-1])


@pytest.mark.parametrize(
    "make", [lambda y: y, lambda y: (y, 7), lambda y: [y, 7], lambda y: Pair(y, 7), lambda y: ([y, 1], {"a": 2})]
)
def test_what_a_layer_returns_is_changed_in_a_copy_of_the_same_form(make):
    torch.manual_seed(0)
    net, x = Unpacking(make), torch.randn(4, 3, 5)
    net.layer.register_forward_hook(lambda module, inputs, output: returned.append(output))
    net.register_forward_hook(lambda module, inputs, output: shown.append((net.got[-1], net.layer.kept[-1])))
    returned, shown = [], []
    assert Changes(net, x, {net: first_tensor}).axes(net, net.layer, [1, 2]) == {2}
    assert len(returned) == len(shown) == 2  # as it is, and with a change that tells at once
    expected = nn.functional.linear(x, net.layer.weight, net.layer.bias)
    for output, (_, kept) in zip(returned, shown, strict=True):
        assert torch.equal(first_tensor(output), expected)
        assert torch.equal(kept, expected)
    changed, _ = shown[1]
    assert type(changed) is type(returned[1])
    assert torch.equal(first_tensor(changed)[..., 1:], expected[..., 1:])
    torch.testing.assert_close(first_tensor(changed)[..., 0], expected[..., 0] + 100 + 10 * expected.abs().max())
    if not isinstance(changed, torch.Tensor):
        assert changed[1:] == returned[1][1:]
        assert changed is not returned[1]


class Halves(nn.Module):
    """No axis of the concatenation is as long as a layer has outputs."""

    def __init__(self, num_inputs):
        super().__init__()
        self.a, self.b, self.act = nn.Conv2d(num_inputs, 4, 1), nn.Conv2d(num_inputs, 5, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.act(torch.cat([self.a(x), self.b(x)], 1))


def test_the_run_without_a_change_is_made_once_for_all_places_and_one_with_a_change_for_each():
    torch.manual_seed(0)
    blocks = [Halves(9 if i else 3) for i in range(4)]
    net, x = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 3)), torch.rand(4, 3, 8, 8)
    calls = []
    net.register_forward_hook(lambda module, inputs, output: calls.append(1))

    def num_runs(**settings):
        calls.clear()
        sb.strip(sb.attach(net, at=["0", "1", "2", "3"], sample=x, **settings))
        return len(calls)

    assert num_runs() - num_runs(features=1) == 1 + 4


def test_places_share_the_runs_of_a_layer():
    torch.manual_seed(0)
    layer, place, after = nn.Linear(5, 5), nn.ReLU(), nn.Tanh()
    net, x = nn.Sequential(layer, place, after), torch.randn(4, 5, 5)
    calls = []
    net.register_forward_hook(lambda module, inputs, output: calls.append(1))
    changes = Changes(net, x, {place: first_tensor, after: first_tensor})
    assert changes.axes(place, layer, [1, 2]) == changes.axes(after, layer, [1, 2]) == {2}
    assert len(calls) == 2
