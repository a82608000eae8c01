r"""The multi-step neuron as one fused forward and one fused backward kernel, by `torch.compile`.

The same source serves a CPU (C++) and a GPU (Triton). Nothing but the input is kept for the backward pass, which runs
the membrane forward again and then walks back through time. With $g_s[t]$ the gradient that reaches the spikes,
$g_v[t]$ the one that reaches the membrane after the reset, $g = $ the surrogate at $u[t] - \theta$:

$$g_u[t] = g_s[t]\, g + g_v[t]\, \frac{\partial v[t]}{\partial u[t]}, \qquad
  \frac{\partial v}{\partial u} = \begin{cases}
    1 - s - u\,g & \text{hard} \\ 1 - \theta\,g & \text{soft} \\ 1 - s,\; 1 & \text{the same, reset detached}
  \end{cases}$$
$$g_x[t] = g_u[t], \qquad g_v[t-1] = \lambda\, g_u[t], \qquad g_\lambda = \sum_t g_u[t]\, v[t-1]$$

A tensor is seen as `[T, M]`, in the order it has in memory, and `M` is dynamic: a kernel is compiled once for a number
of steps, a dtype and a kind of neuron, and serves every layer and batch size.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shortback.ops import reference
from shortback.ops.dynamics import Dynamics


@dataclass(frozen=True)
class _Kind:
    """What a kernel is compiled for, besides dtype and device. A `decay` of None comes as a tensor instead."""

    dynamics: Dynamics
    decay: float | None
    num_steps: int


def multi_step(
    x: Tensor,
    *,
    dynamics: Dynamics,
    decay: float | Tensor,
    num_steps: int,
    initial: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Run a neuron over a whole sequence; arguments and results are those of `shortback.ops.multi_step`."""
    if x.numel() == 0:
        return reference.multi_step(
            x, dynamics=dynamics, decay=decay, num_steps=num_steps, initial=initial, return_state=return_state
        )
    learned = decay if isinstance(decay, Tensor) else None
    kind = _Kind(dynamics, None if isinstance(decay, Tensor) else float(decay), num_steps)
    if torch.compiler.is_compiling():  # the surrounding graph knows every shape and layout: nothing to share
        return _MultiStep.apply(x, learned, initial, kind, return_state)
    order, x = _memory_order(x)
    shape = [x.shape[d] for d in order]
    rows = x.permute(order).view(x.shape[0], -1)
    if initial is not None:
        initial = initial.permute([d - 1 for d in order[1:]]).reshape(-1)
    spikes, state = _MultiStep.apply(rows, learned, initial, kind, return_state)
    back = [order.index(d) for d in range(len(order))]
    spikes = spikes.view(num_steps, *shape[1:]).permute(back)
    return spikes, None if state is None else state.view(shape[1:]).permute([d - 1 for d in back[1:]])


def _memory_order(x: Tensor) -> tuple[list[int], Tensor]:
    """The axes of `x`, time first and then by falling stride, and `x` without holes between its elements."""
    order = [0, *sorted(range(1, x.ndim), key=x.stride, reverse=True)]
    if x.permute(order).is_contiguous():
        return order, x
    return list(range(x.ndim)), x.contiguous()


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, decay: Tensor | None, initial: Tensor | None, kind: _Kind, return_state: bool
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(x, decay, initial)
        ctx.kind = kind
        ctx.set_materialize_grads(False)
        return _run(_forward, kind, (return_state,), x, decay, initial)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_spikes: Tensor | None, grad_state: Tensor | None
    ) -> tuple[Any, ...]:
        x, decay, initial = ctx.saved_tensors
        _, need_decay, need_initial, *_ = ctx.needs_input_grad
        if grad_spikes is None:
            grad_spikes = x.new_zeros(ctx.kind.num_steps, *x.shape[1:])
        elif not torch.compiler.is_compiling():
            grad_spikes = grad_spikes.contiguous()
        flags = need_decay, need_initial
        grad_x, grad_decay, grad_initial = _run(_backward, ctx.kind, flags, x, decay, initial, grad_spikes, grad_state)
        return grad_x, grad_decay, grad_initial, None, None


def _membranes(
    kind: _Kind, x: Tensor, decay: Tensor | None, initial: Tensor | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """By step: membrane before firing, spikes (bool), membrane after the reset (which starts with the initial one)."""
    currents = x.expand(kind.num_steps, *x.shape[1:]).unbind(0)
    dtype = torch.promote_types(x.dtype, torch.float32)
    v = torch.zeros_like(currents[0], dtype=dtype) if initial is None else initial.to(dtype)
    leak = _leak(kind, decay, dtype)
    us: list[Tensor] = []
    fired: list[Tensor] = []
    vs = [v]
    for current in currents:
        u = leak * v + current.to(dtype)
        s = u >= kind.dynamics.threshold
        v = torch.where(s, 0.0, u) if kind.dynamics.reset == "hard" else torch.where(s, u - kind.dynamics.threshold, u)
        us.append(u)
        fired.append(s)
        vs.append(v)
    return us, fired, vs


def _leak(kind: _Kind, decay: Tensor | None, dtype: torch.dtype) -> float | Tensor:
    if decay is not None:
        return decay.to(dtype)
    assert kind.decay is not None
    return kind.decay


def _forward(kind: _Kind, flags: tuple[bool], x: Tensor, decay: Tensor | None, initial: Tensor | None):
    (return_state,) = flags
    _, fired, vs = _membranes(kind, x, decay, initial)
    # Converted before they are stacked, the spikes are written once.
    return torch.stack([s.to(x.dtype) for s in fired]), vs[-1] if return_state else None


def _backward(
    kind: _Kind,
    flags: tuple[bool, bool],
    x: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    grad_spikes: Tensor,
    grad_state: Tensor | None,
):
    need_decay, need_initial = flags
    us, fired, vs = _membranes(kind, x, decay, initial)
    dtype = us[0].dtype
    leak = _leak(kind, decay, dtype)
    grad_v = torch.zeros_like(us[0]) if grad_state is None else grad_state.to(dtype)
    grad_us: list[Tensor] = []
    for t in reversed(range(kind.num_steps)):
        surrogate = kind.dynamics.surrogate.gradient(us[t] - kind.dynamics.threshold)
        through_reset = _reset_derivative(kind.dynamics, us[t], fired[t], surrogate)
        grad_u = grad_spikes[t].to(dtype) * surrogate + grad_v * through_reset
        grad_us.insert(0, grad_u)
        grad_v = leak * grad_u
    constant_input = x.shape[0] != kind.num_steps
    if constant_input:
        grad_x = sum(grad_us[1:], grad_us[0])[None].to(x.dtype)
    else:
        grad_x = torch.stack([grad_u.to(x.dtype) for grad_u in grad_us])
    grad_decay = None
    if need_decay:
        assert decay is not None
        products = [grad_u * v for grad_u, v in zip(grad_us, vs[:-1], strict=True)]
        grad_decay = sum(products[1:], products[0]).sum().to(decay.dtype).reshape(decay.shape)
    grad_initial = None
    if need_initial:
        assert initial is not None
        grad_initial = grad_v.to(initial.dtype)
    return grad_x, grad_decay, grad_initial


def _reset_derivative(dynamics: Dynamics, u: Tensor, fired: Tensor, surrogate: Tensor) -> Tensor | float:
    """The derivative of the membrane after the reset by the one before it."""
    if dynamics.reset == "hard":
        kept = (~fired).to(u.dtype)
        return kept if dynamics.detach_reset else kept - u * surrogate
    return 1.0 if dynamics.detach_reset else 1 - dynamics.threshold * surrogate


def _run(body: Callable, kind: _Kind, flags: tuple[bool, ...], *tensors: Tensor | None):
    """Call `body` for one kind of neuron: compiled, or as it stands where a surrounding graph is being compiled."""
    if torch.compiler.is_compiling():
        return body(kind, flags, *tensors)
    return _compile(body, kind, flags)(*(None if t is None else _any_size(t) for t in tensors))


def _any_size(tensor: Tensor) -> Tensor:
    """The tensor as something a kernel is not specialised for: no view of another one, its last axis of any size."""
    tensor = tensor.detach()
    if tensor.ndim:
        torch._dynamo.maybe_mark_dynamic(tensor, tensor.ndim - 1)
    return tensor


@functools.cache
def _compile(body: Callable, kind: _Kind, flags: tuple[bool, ...]) -> Callable:
    def kernel(*tensors: Tensor | None):
        return body(kind, flags, *tensors)

    # Dynamo counts recompilations by code object: with one of its own, a kind of neuron is not charged for the others.
    own = types.FunctionType(kernel.__code__.replace(), kernel.__globals__, body.__name__, None, kernel.__closure__)
    # Not dynamic=True, which would make the numbers of the kind variables of the kernel too.
    return torch.compile(own, fullgraph=True)
