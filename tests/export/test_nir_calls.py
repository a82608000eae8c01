"""Calls of functions that NIR has, by position and by name, and what is refused of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.errors import UserError
from shortback.export.nir import to_nir

pytest.importorskip("nir")

X = torch.randn(2, 1, 4, 4)


class Calls(nn.Module):
    """Two convolutions, a norm, a neuron and a classifier, called as `forward` says."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        self.act, self.fc, self.calls = nn.ReLU(), nn.Linear(2, 3), forward

    def forward(self, x):
        return self.calls(self, x)

    def tail(self, x):
        return self.fc(self.act(x).mean([2, 3]))


def graph_of(forward):
    torch.manual_seed(0)
    return to_nir(sb.spikify(Calls(forward), num_steps=2).eval(), X)


def graph_edges(forward):
    return sorted(graph_of(forward).edges)


SUMS = {
    "by_position": lambda m, x: m.tail(torch.add(m.a(x), m.b(x))),
    "by_name": lambda m, x: m.tail(torch.add(input=m.a(x), other=m.b(x))),
    "method": lambda m, x: m.tail(m.a(x).add(other=m.b(x))),
    "factor_of_one": lambda m, x: m.tail(torch.add(m.a(x), m.b(x), alpha=1)),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_edges(name):
    assert graph_edges(SUMS[name]) == graph_edges(lambda m, x: m.tail(m.a(x) + m.b(x)))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.tail(torch.add(m.a(x), m.b(x), alpha=3)),
        lambda m, x: m.tail(m.a(x).add(m.b(x), alpha=3)),
        lambda m, x: m.tail(m.a(x).add_(m.b(x), alpha=3)),
    ],
    ids=["function", "method", "in_place"],
)
def test_a_sum_with_a_factor_is_refused(forward):
    """Which was written without it."""
    with pytest.raises(ValueError, match=r"NIR has no add_? with alpha=3: write a \+ b, with the factor in the convol"):
        graph_of(forward)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: m.tail(m.a(x) + 1), r"not a number such as 1: put it into the convolution"),
        (
            lambda m, x: m.fc(m.act(m.a(x)).mean([2, 3], dtype=torch.float64).float()),
            "no mean with dtype=torch.float64",
        ),
        (lambda m, x: m.tail(F.dropout(m.a(x), 0.5)), "no dropout with training=True: write nn.Dropout"),
        (lambda m, x: m.tail(m.a(x) - m.b(x)), "NIR has no sub; it has additions"),
    ],
    ids=["number", "dtype", "dropout", "sub"],
)
def test_what_nir_has_nothing_for_is_refused_in_a_line(forward, message):
    """Without what fx adds about its graph."""
    with pytest.raises(ValueError, match=message) as error:
        graph_of(forward)
    assert isinstance(error.value, UserError)
    assert "\n" not in str(error.value)
    assert "tlparse" not in str(error.value)


@pytest.mark.parametrize(
    ("by_name", "by_position"),
    [
        (lambda m, x: m.tail(m.a(input=x)), lambda m, x: m.tail(m.a(x))),
        (lambda m, x: m.tail(m.norm(input=m.a(x))), lambda m, x: m.tail(m.norm(m.a(x)))),
        (lambda m, x: m.tail(m.norm(input=m.act(x=m.a(x)))), lambda m, x: m.tail(m.norm(m.act(m.a(x))))),
        (
            lambda m, x: m.fc(input=torch.mean(input=m.act(m.a(x)), dim=(2, 3))),
            lambda m, x: m.fc(torch.mean(m.act(m.a(x)), (2, 3))),
        ),
        (
            lambda m, x: m.fc(m.act(m.a(x)).mean(axis=(2, 3), keepdims=False)),
            lambda m, x: m.fc(m.act(m.a(x)).mean((2, 3))),
        ),
        (
            lambda m, x: m.fc(
                torch.flatten(input=F.adaptive_avg_pool2d(input=m.act(m.a(x)), output_size=1), start_dim=1)
            ),
            lambda m, x: m.fc(torch.flatten(F.adaptive_avg_pool2d(m.act(m.a(x)), 1), 1)),
        ),
        (
            lambda m, x: m.tail(F.dropout(input=m.a(x), p=0.5, training=m.training)),
            lambda m, x: m.tail(m.a(x)),
        ),
    ],
    ids=["convolution", "norm", "neuron", "mean", "numpy", "pooling", "dropout"],
)
def test_inputs_by_name_are_those_by_position(by_name, by_position):
    assert graph_edges(by_name) == graph_edges(by_position)
