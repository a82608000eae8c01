"""The multi-step neuron as one fused forward kernel and one fused backward kernel, made by `torch.compile`.

Only the inputs are kept for the backward pass, which recomputes the membrane and then walks back through time by the
equations in `kernels.py`. Kernels see a tensor as `[T, M]`, in memory order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shortback.ops import kernels, reference
from shortback.ops.dynamics import Dynamics
from shortback.ops.kernels import Kind
from shortback.torch_private import is_functional


def multi_step(
    x: Tensor,
    *,
    dynamics: Dynamics,
    decay: float | Tensor,
    num_steps: int,
    initial: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Run a neuron over a whole sequence, with the arguments and results of `shortback.ops.multi_step`.

    Within a transform of `torch.func` the reference runs instead, which can be transformed and differentiated again.
    """
    if x.numel() == 0 or (not torch.compiler.is_compiling() and is_functional()):
        return reference.multi_step(
            x, dynamics=dynamics, decay=decay, num_steps=num_steps, initial=initial, return_state=return_state
        )
    learned = decay if isinstance(decay, Tensor) else None
    kind = Kind.of(dynamics, decay, num_steps)
    if torch.compiler.is_compiling():  # the surrounding graph is compiled for its shapes and layouts anyway
        return _MultiStep.apply(x, learned, initial, kind, return_state)
    order, x = _memory_order(x)
    shape = [x.shape[d] for d in order]
    rows = x.permute(order).view(x.shape[0], -1)
    if initial is not None:
        initial = initial.permute([d - 1 for d in order[1:]]).reshape(-1).contiguous()
    spikes, state = _MultiStep.apply(rows, learned, initial, kind, return_state)
    back = [order.index(d) for d in range(len(order))]
    spikes = spikes.view(num_steps, *shape[1:]).permute(back)
    return spikes, None if state is None else state.view(shape[1:]).permute([d - 1 for d in back[1:]])


def _memory_order(x: Tensor) -> tuple[list[int], Tensor]:
    """Return the axes of `x`, time first and the others by falling stride, and `x`, copied if it has gaps in memory."""
    order = [0, *sorted(range(1, x.ndim), key=x.stride, reverse=True)]
    if x.permute(order).is_contiguous():
        return order, x
    return list(range(x.ndim)), x.contiguous()


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor, decay: Tensor | None, initial: Tensor | None, kind: Kind, return_state: bool
    ) -> tuple[Tensor, Tensor | None]:
        return kernels.run(_forward, (kind, return_state), x, decay, initial)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        x, decay, initial, ctx.kind, _ = inputs
        ctx.save_for_backward(x, decay, initial)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_spikes: Tensor | None, grad_state: Tensor | None
    ) -> tuple[Any, ...]:
        kernels.refuse_second_derivative()
        x, decay, initial = ctx.saved_tensors
        if grad_spikes is None:
            grad_spikes = x.new_zeros(ctx.kind.num_steps, *x.shape[1:])
        elif not torch.compiler.is_compiling():
            grad_spikes = grad_spikes.contiguous()
        if grad_state is not None and not torch.compiler.is_compiling():
            grad_state = grad_state.contiguous()
        grads = kernels.run(_backward, (ctx.kind,), x, decay, initial, grad_spikes, grad_state)
        return *grads, None, None


def _currents(kind: Kind, x: Tensor) -> list[Tensor]:
    dtype = kernels.accumulation_dtype(x.dtype)
    return [step.to(dtype) for step in x.expand(kind.num_steps, *x.shape[1:]).unbind(0)]


def _forward(kind: Kind, return_state: bool, x: Tensor, decay: Tensor | None, initial: Tensor | None):
    membranes = kernels.integrate(kind, _currents(kind, x), decay=decay, initial=initial)
    return kernels.as_spikes(membranes.fired, x.dtype), membranes.after[-1] if return_state else None


def _backward(
    kind: Kind,
    x: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    grad_spikes: Tensor,
    grad_state: Tensor | None,
):
    membranes = kernels.integrate(kind, _currents(kind, x), decay=decay, initial=initial)
    grads = kernels.walk_back(
        kind,
        membranes,
        grad_spikes=[grad.to(membranes.before[0].dtype) for grad in grad_spikes.unbind(0)],
        grad_state=grad_state,
        decay=decay,
    )
    if x.shape[0] == kind.num_steps:
        grad_x = torch.stack([grad.to(x.dtype) for grad in grads.currents])
    else:  # the same current at every step
        grad_x = kernels.total(grads.currents)[None].to(x.dtype)
    return grad_x, grads.decay, None if initial is None else grads.initial.to(initial.dtype)
