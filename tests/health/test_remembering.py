"""Networks that remember something from one batch to the next: what is refused, and what is said."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.health import GradientReport, measure
from shortback.losses import ShortcutLoss

SETTINGS = {"loss": ShortcutLoss(), "coefficient": 0.0}
SAID = "the same batch gave two outputs, and the second was measured"


class Membrane(nn.Module):
    """A neuron that no one resets, and whose gradient leads back in time or is cut off."""

    def __init__(self, *, detached):
        super().__init__()
        self.v, self.detached = 0.0, detached

    def forward(self, x):
        v = 0.5 * self.v + x
        spikes = (v > 1).float() + v - v.detach()
        self.v = v * (1 - spikes)
        if self.detached:
            self.v = self.v.detach()
        return spikes


def with_membrane(**settings):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), Membrane(**settings), nn.Linear(6, 5)), 3 * torch.randn(4, 6), torch.arange(4)


def test_a_gradient_that_leads_into_the_batch_before_is_refused():
    net, x, y = with_membrane(detached=False)
    with pytest.raises(ValueError, match=r"the gradient leads back into the previous batch: .* sb\.register_reset"):
        measure(net, x, y, **SETTINGS)
    assert net[1].v == 0.0
    assert measure(net, x, y, **SETTINGS, by_branch=False).layers  # as within a training


def test_one_that_is_cut_off_is_measured_and_said(monkeypatch):
    net, x, y = with_membrane(detached=True)
    first, second = F.cross_entropy(net(x), y).item(), F.cross_entropy(net(x), y).item()
    assert abs(first - second) > 1e-3
    net[1].v = 0.0
    seen = measure(net, x, y, **SETTINGS)
    assert seen.remembers
    assert seen.loss == pytest.approx(second)
    assert net[1].v == 0.0
    assert SAID in str(GradientReport.of(seen))
    assert not measure(net, x, y, **SETTINGS, by_branch=False).remembers  # not asked for
    monkeypatch.setattr(Membrane, "reset", lambda self: setattr(self, "v", 0.0), raising=False)
    seen = measure(net, x, y, **SETTINGS)
    assert not seen.remembers
    assert seen.loss == pytest.approx(first)


class Net(nn.Module):
    """Two layers, and something of `hidden` between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.act, self.last, self.b = nn.Linear(6, 8), nn.ReLU(), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.last(self.hidden(self.act(self.a(x)))))


class Counter(Net):
    """A warm-up that counts in `eval()` too."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def hidden(self, h):
        self.calls += 1
        return h * min(1.0, 0.5 + self.calls / 1000)


class Average(Net):
    """A running mean that runs in `eval()` too, changed in place in the graph of the gradient."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(8))

    def hidden(self, h):
        self.mean.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        return h * self.mean


@pytest.mark.parametrize("make", [Counter, Average])
def test_counters_and_averages_are_measured_and_said(make):
    net, x, y = make(), torch.rand(6, 6), torch.arange(6) % 3
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net(x)
    second = F.cross_entropy(net(x), y).item()
    net.load_state_dict(before)
    net.calls = 0
    report = sb.diagnose(net, x, y, suggest=False)
    assert report.judgement.verdict == "healthy"
    assert report.measurement.loss == pytest.approx(second)
    assert SAID in str(report)
    assert net.calls == 0
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert sb.attach(net, at="auto", sample=x).places


def test_what_does_not_remember_is_not_said_to(make_network, batch):
    report = sb.diagnose(make_network(), *batch, suggest=False)
    assert not report.measurement.remembers
    assert SAID not in str(report)


class InRange(Net):
    """Takes images in [-1, 1] alone, and draws from Python's random numbers."""

    def forward(self, x):
        assert x.abs().max() <= 1
        return super().forward(x)

    def hidden(self, h):
        return h * (1 + random.random()) if self.training else h


class Tokens(InRange):
    """Takes tokens as floats."""

    def __init__(self):
        super().__init__()
        self.a = nn.Embedding(3, 8)

    def forward(self, x):
        return Net.forward(self, x.long()).mean(1)


@pytest.mark.parametrize(("net", "x"), [(InRange(), torch.rand(6, 6)), (Tokens(), torch.tensor([[0.0, 1, 2]] * 6))])
def test_a_network_need_not_take_what_it_is_looked_at_with(net, x):
    random.seed(0)
    y = torch.arange(6) % 3
    assert len(measure(net, x, y, **SETTINGS).layers) == 2
    assert not measure(net, x, y, **SETTINGS).remembers
