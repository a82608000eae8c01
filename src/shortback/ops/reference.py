"""The definition of the multi-step neuron: a loop over time, differentiated by autograd.

Every other implementation must match this one, in outputs and in gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from shortback.ops.dynamics import Dynamics


class _Fire(torch.autograd.Function):
    """The step function, with the surrogate in place of its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, dynamics: Dynamics) -> Tensor:  # type: ignore[override]
        return has_fired(u, dynamics).to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Dynamics], output: Tensor) -> None:
        u, ctx.dynamics = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (u,) = ctx.saved_tensors
        return grad_spikes * ctx.dynamics.surrogate.gradient(u - ctx.dynamics.threshold), None


def has_fired(u: Tensor, dynamics: Dynamics) -> Tensor:
    """Return where the neuron fires: at or above the threshold, or only above it with `fires_above`."""
    return u > dynamics.threshold if dynamics.fires_above else u >= dynamics.threshold


def multi_step(
    x: Tensor,
    *,
    dynamics: Dynamics,
    decay: float | Tensor,
    num_steps: int,
    initial: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Run a neuron over a whole sequence, with the arguments and results of `shortback.ops.multi_step`."""
    decay = _precise(decay, x)
    currents = _currents(x, dynamics, decay, num_steps)
    v = torch.full_like(currents[0], dynamics.initial) if initial is None else initial.to(currents.dtype)
    spikes = []
    for current in currents.unbind(0):
        u = decay * v + current
        s = _Fire.apply(u, dynamics)
        spikes.append(s)
        v = _after_reset(u, s.detach() if dynamics.detach_reset else s, dynamics)
    return torch.stack(spikes).to(x.dtype), v if return_state else None


def membranes(x: Tensor, *, dynamics: Dynamics, decay: float | Tensor, num_steps: int) -> Iterator[Tensor]:
    """Yield the membrane before firing, `[...]`, step by step, with arguments as in `multi_step`."""
    decay = _precise(decay, x)
    currents = _currents(x, dynamics, decay, num_steps)
    v = torch.full_like(currents[0], dynamics.initial)
    for current in currents.unbind(0):
        u = decay * v + current
        yield u
        v = _after_reset(u, has_fired(u, dynamics).to(u.dtype), dynamics)


def _precise(decay: float | Tensor, x: Tensor) -> float | Tensor:
    """Convert a learned decay to the precision of the membrane, which `1 - decay` and the sum of its gradients need."""
    return decay.to(torch.promote_types(x.dtype, torch.float32)) if isinstance(decay, Tensor) else decay


def _currents(x: Tensor, dynamics: Dynamics, decay: float | Tensor, num_steps: int) -> Tensor:
    currents = x.to(torch.promote_types(x.dtype, torch.float32))
    return ((1 - decay) * currents if dynamics.decay_input else currents).expand(num_steps, *x.shape[1:])


def _after_reset(u: Tensor, spikes: Tensor, dynamics: Dynamics) -> Tensor:
    if dynamics.reset == "hard":
        v = u * (1 - spikes)
        return v + dynamics.reset_to * spikes if dynamics.reset_to else v
    return u - dynamics.threshold * spikes if dynamics.reset == "soft" else u
