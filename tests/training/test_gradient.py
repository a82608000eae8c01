"""Half precision with a scale: by the numbers of float32, and through overflows."""

import os
import signal

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.training import Interrupted, NonFiniteError, choose_execution, engine, fit
from shortback.training.checkpoint import read_checkpoint
from shortback.training.finite import FiniteCheck
from tests.training.test_identity import loader, net


def trained(folder, network, *, precision, **settings):
    execution = choose_execution(precision=precision, compile=settings.pop("compile", "off"))
    rows = []

    class Keep:
        def start(self, **_): ...
        def log(self, row):
            rows.append(row)

        def advance(self, step): ...
        def close(self): ...

    settings = {"epochs": 3, "lr": 0.05, "log_every": 1, **settings}
    loggers = settings.pop("loggers", [Keep()])
    fit(network, loader(), folder=folder, execution=execution, loggers=loggers, **settings)
    return rows


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_fp16_follows_fp32(tmp_path, clip_norm):
    """The norms that are logged and clipped are of the gradient, not of its multiple by the scale."""
    full, half = (
        [row for row in trained(tmp_path / p, smooth(), precision=p, clip_norm=clip_norm) if row["kind"] == "step"]
        for p in ("fp32", "fp16")
    )
    for a, b in zip(full, half, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.02)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=0.05)


def smooth():
    """Without spikes, which a rounding flips."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 32), nn.Tanh(), nn.Linear(32, 4))


@pytest.mark.parametrize("compile", ["off", "neuron"])
def test_a_spiking_network_begins_as_in_fp32(tmp_path, compile):
    """As near as a few spikes that a rounding flips let it: bfloat16 is further off."""
    rows = {p: trained(tmp_path / p, net(width=1.0), precision=p, compile=compile, epochs=1) for p in ("fp32", "fp16")}
    full, half = (rows[p][0] for p in ("fp32", "fp16"))
    assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert half["gradient_norm"] == pytest.approx(full["gradient_norm"], rel=0.15)
    assert half["gradient_norm"] != full["gradient_norm"]


class Overflows(nn.Module):
    """Scaled gradients of `times` backward passes are infinite."""

    def __init__(self, times):
        super().__init__()
        self.inner, self.left = smooth(), times

    def forward(self, x):
        out = self.inner(x)
        if self.training and self.left and out.requires_grad:
            self.left -= 1
            out.register_hook(lambda gradient: gradient * torch.inf)
        return out


@pytest.fixture(params=[False, True], ids=["at once", "later, as on a GPU"])
def looking(request, monkeypatch):
    """When the numbers of a step are looked at."""
    monkeypatch.setattr(engine, "FiniteCheck", lambda net, **rest: FiniteCheck(net, **rest | {"later": request.param}))


def test_an_overflow_is_left_out_and_training_goes_on(tmp_path, looking):
    network = Overflows(2)
    rows = [row for row in trained(tmp_path, network, precision="fp16") if row["kind"] == "step"]
    assert [row["gradient_norm"] for row in rows[:2]] == [0.0, 0.0]
    assert rows[0]["loss"] != rows[3]["loss"]
    assert all(row["gradient_norm"] > 0 for row in rows[2:])
    assert all(p.isfinite().all() for p in network.parameters())


def test_overflows_without_end_are_an_error(tmp_path, looking):
    with pytest.raises(NonFiniteError, match=r"overflowed in fp16 in 50 consecutive steps.* train\.precision=fp32"):
        trained(tmp_path, Overflows(10**6), precision="fp16", epochs=20)


def test_the_scale_is_resumed(tmp_path, looking):
    class Stop:
        def __init__(self, at):
            self.at = at

        def start(self, **_): ...
        def log(self, row): ...
        def close(self): ...
        def advance(self, step):
            if step == self.at:
                os.kill(os.getpid(), signal.SIGTERM)

    whole, cut = Overflows(1), Overflows(1)
    trained(tmp_path / "whole", whole, precision="fp16", loggers=())
    with pytest.raises(Interrupted):
        trained(tmp_path / "cut", cut, precision="fp16", loggers=[Stop(5)])
    again = Overflows(0)
    trained(tmp_path / "cut", again, precision="fp16", loggers=(), resume=True)
    whole_state, cut_state = (read_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "cut"))
    assert whole_state["gradient"] == cut_state["gradient"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_network_is_stripped_as_ever(tmp_path):
    network = net()
    trained(tmp_path, network, precision="fp16", epochs=1)
    assert not isinstance(sb.strip(network), sb.ShortcutNetwork)


class Spoils(nn.Module):
    """Turns the gradient of its first layer into NaN, or infinity, and no other."""

    def __init__(self, value):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Flatten(), nn.Linear(144, 8)), nn.Linear(8, 4)
        self.first[1].weight.register_hook(lambda gradient: gradient * value)

    def forward(self, x):
        return self.last(self.first(x))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_clipping_does_not_hide_where_a_gradient_is_not_finite(tmp_path, looking, value):
    message = r"first not finite: the gradient of first\.1\.weight\. Try .*, clip_norm=0\.1 \(on the command"
    with pytest.raises(NonFiniteError, match=message):
        trained(tmp_path, Spoils(value), precision="fp32", clip_norm=1.0)
