"""Every layer with weights is found, and stands where a forward uses it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shortback.health import GradientReport, measure
from shortback.health.layers import in_order, layers_of, order_of_calls
from shortback.losses import ShortcutLoss


def names(net, x):
    layers = layers_of(net)
    with order_of_calls(layers) as called:
        output = net(x)
    return [layer.name for layer in in_order(layers, called, [output])]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 3, 8))
        self.fc, self.embed, self.attention = nn.Linear(8, 5), nn.Linear(6, 8), nn.MultiheadAttention(8, 2)

    def forward(self, x):
        h = self.embed(x) + self.position
        return self.fc(self.attention(h, h, h)[0])


def test_what_is_not_called_by_itself_stands_where_it_is_used():
    expected = ["embed", "(the network)", "attention", "attention.out_proj", "fc"]
    assert names(Attention(), torch.randn(4, 3, 6)) == expected


class Functional(nn.Module):
    """Weights in a list, one of a layer that is never called, and classes by their angles."""

    def __init__(self):
        super().__init__()
        self.angles = nn.Linear(6, 5, bias=False)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(6, 6)) for _ in range(3)])
        self.first, self.called, self.spare = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = F.linear(x, self.first.weight)
        for weight in self.weights:
            x = (x @ weight).tanh()
        return F.linear(F.normalize(self.called(x)), F.normalize(self.angles.weight))


def test_functions_of_weights_are_layers_too():
    expected = ["first", "weights.0", "weights.1", "weights.2", "called", "angles", "spare"]
    assert names(Functional(), torch.randn(3, 4)) == expected


def test_layers_that_are_called_keep_the_order_of_their_calls():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            short, long = self.a(x), self.b(self.b(x))
            return short + long

    assert names(Two(), torch.randn(2, 4)) == ["a", "b", "unused"]


class Trained(nn.Module):
    """Weights that no module is called for, and a layer that nothing leads back to."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(0.4 * torch.randn(6, 6)) for _ in range(3)])
        self.lin, self.fc, self.cut = nn.Linear(12, 6), nn.Linear(6, 5), nn.Linear(5, 5)
        self.own = nn.Parameter(torch.ones(1, 6))

    def forward(self, x):
        x = F.linear(x, self.lin.weight) + self.own
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        x = self.fc(x)
        with torch.no_grad():
            nothing = 0 * self.cut(x)
        return x + nothing


def test_weights_of_functions_are_measured():
    torch.manual_seed(0)
    net, x, y = Trained(), torch.randn(4, 12), torch.arange(4)
    seen = measure(net, x, y, loss=ShortcutLoss(), coefficient=0.0)
    F.cross_entropy(net(x), y).backward()
    expected = {"lin": net.lin.weight, "(the network)": net.own}
    expected |= {f"weights.{i}": weight for i, weight in enumerate(net.weights)} | {"fc": net.fc.weight}
    assert [layer.name for layer in seen.layers] == list(expected)
    for layer in seen.layers:
        assert layer.gradient_norm == pytest.approx(expected[layer.name].grad.norm().item(), rel=1e-5)
    assert seen.unused == ["cut"]
    assert "without a gradient because no output leads to them: cut" in str(GradientReport.of(seen))
    assert sum(seen.first_layer.counts["whole loss"]) == net.lin.weight.numel()
