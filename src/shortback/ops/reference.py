"""The definition of the multi-step neuron: a loop over time, differentiated by autograd.

Every other implementation must match this one, in outputs and in gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from shortback.ops.dynamics import Dynamics
from shortback.surrogates import Surrogate


class _Fire(torch.autograd.Function):
    """The step function, with the surrogate's derivative in place of its own."""

    @staticmethod
    def forward(u: Tensor, threshold: float, surrogate: Surrogate) -> Tensor:  # type: ignore[override]
        return (u >= threshold).to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, Surrogate], output: Tensor) -> None:
        u, ctx.threshold, ctx.surrogate = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (u,) = ctx.saved_tensors
        return grad_spikes * ctx.surrogate.gradient(u - ctx.threshold), None, None


def multi_step(
    x: Tensor,
    *,
    dynamics: Dynamics,
    decay: float | Tensor,
    num_steps: int,
    initial: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Run a neuron over a whole sequence; arguments and results as of `shortback.ops.multi_step`."""
    currents = x.to(torch.promote_types(x.dtype, torch.float32)).expand(num_steps, *x.shape[1:])
    v = torch.zeros_like(currents[0]) if initial is None else initial.to(currents.dtype)
    spikes = []
    for current in currents.unbind(0):
        u = decay * v + current
        s = _Fire.apply(u, dynamics.threshold, dynamics.surrogate)
        spikes.append(s)
        reset = s.detach() if dynamics.detach_reset else s
        v = u * (1 - reset) if dynamics.reset == "hard" else u - dynamics.threshold * reset
    return torch.stack(spikes).to(x.dtype), v if return_state else None


def membranes(x: Tensor, *, dynamics: Dynamics, decay: float | Tensor, num_steps: int) -> Iterator[Tensor]:
    """The membrane before firing, `[...]` of one step after another; arguments as of `multi_step`."""
    currents = x.to(torch.promote_types(x.dtype, torch.float32)).expand(num_steps, *x.shape[1:])
    v = torch.zeros_like(currents[0])
    for current in currents.unbind(0):
        u = decay * v + current
        yield u
        fired = u >= dynamics.threshold
        v = torch.where(fired, 0.0, u) if dynamics.reset == "hard" else u - dynamics.threshold * fired
