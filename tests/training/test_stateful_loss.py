"""A loss that learns belongs to a run, and continues with it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.training import choose_execution, fit
from shortback.training.stateful_loss import load_states_of_loss, states_of_loss

BATCHES = [(torch.randn(8, 5, generator=torch.Generator().manual_seed(i)), torch.arange(8) % 4) for i in range(4)]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, output, target):
        return F.cross_entropy(output * self.scale, target)


class StopsAt:
    def __init__(self, step=None):
        self.step = step

    def start(self, **_):
        pass

    def log(self, row):
        pass

    def close(self):
        pass

    def advance(self, step):
        if step == self.step:
            raise KeyboardInterrupt


def run(folder, *, stop=None):
    torch.manual_seed(0)
    net, loss = nn.Sequential(nn.Linear(5, 6), sb.LIF(1, backend="reference"), nn.Linear(6, 4)), Scaled()
    optimizer = torch.optim.SGD([*net.parameters(), *loss.parameters()], lr=0.5, momentum=0.9)
    settings = {"loss": loss, "optimizer": optimizer, "loggers": [StopsAt(stop)], "resume": True}
    fit(net, BATCHES, epochs=4, folder=folder, execution=choose_execution(precision="fp32"), **settings)
    return net, loss


def test_a_loss_that_learns_continues_where_it_was(tmp_path):
    net, loss = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop=6)
    again, its_loss = run(tmp_path / "stopped")
    assert torch.equal(loss.scale, its_loss.scale)
    assert loss.scale != 1
    assert torch.equal(net[0].weight, again[0].weight)


def test_losses_without_a_state_have_none():
    assert states_of_loss(sb.ShortcutLoss()) == [{}, {}]
    load_states_of_loss(sb.ShortcutLoss(), [{}, {}])
    loss = sb.ShortcutLoss(main=Scaled(), combine="additive", branch=nn.CrossEntropyLoss(weight=torch.ones(3)))
    saved = [{name: value.clone() for name, value in state.items()} for state in states_of_loss(loss)]
    loss.main.scale.data.fill_(7)
    loss.branch.weight.fill_(7)
    load_states_of_loss(loss, saved)
    assert loss.main.scale == 1
    assert loss.branch.weight.tolist() == [1, 1, 1]
    load_states_of_loss(loss, [])
