"""Random numbers, such as those of rate coding, are told from what is remembered, and leave the sizes to tell."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection.repeatable import why_not_repeatable


class Fires(nn.Module):
    def forward(self, x):
        return (x > 0.3).to(x.dtype)


class Rate(nn.Module):
    """Rate coding of its input within the forward."""

    def __init__(self, num_steps, *, mean=True, folded=False):
        super().__init__()
        torch.manual_seed(0)
        self.num_steps, self.mean, self.folded = num_steps, mean, folded
        self.body = nn.Sequential(*(nn.Linear(5, 6), Fires(), nn.Linear(6, 6), Fires(), nn.Linear(6, 6), Fires()))
        self.fc = nn.Linear(6, 7)

    def forward(self, x):
        spikes = (torch.rand(self.num_steps, *x.shape) < x).to(x.dtype)
        if self.folded:
            spikes = self.body(spikes.flatten(0, 1)).unflatten(0, (self.num_steps, -1))
        else:
            spikes = self.body(spikes)
        logits = self.fc(spikes)
        return logits.mean(0) if self.mean else logits


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.number = nn.Linear(5, 3), [0.0]

    def forward(self, x):
        self.number[0] += 1
        return self.fc(x) * self.number[0]


X = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))


def test_why():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert why_not_repeatable(Rate(3), X) == "draws"
    torch.manual_seed(0)
    assert why_not_repeatable(Remembers(), X) == "remembers"
    torch.manual_seed(0)
    assert why_not_repeatable(nn.Linear(5, 3), X) is None
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("num_steps", [3, 4, 7])
def test_sizes_tell_of_rate_coding(num_steps, mean):
    for seed in range(3):
        net = Rate(num_steps, mean=mean)
        torch.manual_seed(seed)
        attached = sb.attach(net, sample=X)
        assert attached.places == ("body.1", "body.3")
        assert {tap.layout for tap in attached.taps} == {"time_first"}
        assert attached(X).logits.shape == ((4, 7) if mean else (num_steps, 4, 7))


def test_what_sizes_leave_open_is_asked_for_with_the_reason():
    with pytest.raises(ValueError, match="may be folded_batch or folded: its values are drawn at random; use layout="):
        sb.attach(Rate(3, folded=True), sample=X)
    assert sb.attach(Rate(3, folded=True), sample=X, layout="folded").places == ("body.1", "body.3")


def test_what_remembers_is_said_to():
    with pytest.raises(ValueError, match="the network remembers something from one batch to the next"):
        sb.attach(Remembers(), at=["fc"], sample=X)


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x * self.draw()


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["Python", "NumPy"])
def test_numbers_of_other_generators_are_drawn_too(draw):
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert why_not_repeatable(Noisy(draw), X) == "draws"
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
