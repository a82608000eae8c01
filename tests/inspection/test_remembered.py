import torch
from torch import nn

from shortback.inspection.remembered import reached_in_graph, remembered_graph


class Keeps(nn.Module):
    """A layer that keeps what it returned, in a place of choice."""

    def __init__(self, keep):
        super().__init__()
        self.fc, self.keep = nn.Linear(3, 3), keep

    def forward(self, x):
        y = self.fc(x)
        self.keep(self, y)
        return y


def test_a_graph_that_is_kept_anywhere_is_found_and_named():
    x = torch.randn(2, 3)
    places = [
        lambda module, y: setattr(module, "v", y),
        lambda module, y: setattr(module, "states", {"deep": [(y,)]}),
        lambda module, y: module.register_buffer("b", y),
    ]
    for keep in places:
        net = nn.Sequential(Keeps(keep))
        assert remembered_graph(net) == {}
        y = net(x)
        assert list(remembered_graph(net).values()) == ["0"]
        assert reached_in_graph(y.sum() + 1, remembered_graph(net)) == "0"
        assert reached_in_graph(net[0].fc(x), remembered_graph(net)) is None


def test_nothing_kept_is_nothing_reached():
    assert reached_in_graph(torch.ones(2, requires_grad=True).sum(), {}) is None
    assert reached_in_graph(torch.ones(2), {object(): "x"}) is None
