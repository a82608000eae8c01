"""Neurons as others write them: of all steps at once, along any axis, and with their membrane beside the spikes."""

import torch
from torch import nn


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).float()

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (1 - u.abs()).clamp(min=0)


class MultiStep(nn.Module):
    """All steps at once, along an axis."""

    def __init__(self, axis):
        super().__init__()
        self.axis = axis

    def forward(self, x):
        v, spikes = 0, []
        for u in x.unbind(self.axis):
            v = 0.5 * v + u
            spikes.append(Spike.apply(v - 1))
            v = v * (1 - spikes[-1])
        return torch.stack(spikes, self.axis)


class OneStep(nn.Module):
    """One step a call, which returns `(spikes, membrane)`, or the membrane first."""

    def __init__(self, *, membrane_first=False):
        super().__init__()
        self.membrane_first = membrane_first

    def forward(self, x, membrane=None):
        v = x if membrane is None else 0.5 * membrane + x
        spikes = Spike.apply(v - 1)
        v = v * (1 - spikes)
        return (v, spikes) if self.membrane_first else (spikes, v)
