import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.export.functions import products_in_functions


class Products(nn.Module):
    """Attention, as far as it multiplies, after a convolution and with a weight that is no module's."""

    def __init__(self, forward):
        super().__init__()
        self.conv, self.own, self.calls = nn.Conv2d(1, 4, 1), nn.Parameter(torch.ones(4, 4)), forward

    def forward(self, x):
        return self.calls(self, self.conv(x).flatten(2))


@pytest.mark.parametrize(
    ("forward", "names"),
    [
        (lambda m, q: q * 2 + q.mean(), []),
        (lambda m, q: q @ q.mT, ["matmul"]),
        (lambda m, q: torch.einsum("nij,nkj->nik", q, q), ["einsum"]),
        (lambda m, q: F.linear(q.mT, m.own), ["linear"]),
        (
            lambda m, q: torch.bmm(F.scaled_dot_product_attention(q, q, q), q.mT),
            ["scaled_dot_product_attention", "bmm"],
        ),
    ],
    ids=["none", "operator", "einsum", "linear", "attention"],
)
def test_products_outside_of_layers_are_named(forward, names):
    net = Products(forward)
    assert products_in_functions(net, torch.randn(2, 1, 3, 3)) == [f"{name} (a function)" for name in names]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_count_says_what_it_leaves_out():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, x):
            q = self.act(self.conv(x)).flatten(2)
            return self.fc((q @ q.mT).mean(1))

    model = sb.spikify(Attends(), num_steps=2)
    counted = sb.count_operations(model, [torch.randn(2, 1, 3, 3)])
    assert counted.not_counted == ["matmul (a function)"]
    assert "not counted: matmul (a function)" in str(counted)
    before = model.network.act.backend
    products_in_functions(model, torch.randn(2, 1, 3, 3))
    assert model.network.act.backend == before != "reference"
