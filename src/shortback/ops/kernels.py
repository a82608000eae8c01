r"""What the compiled operations are made of: the membrane through time, the way back, and the compilation itself.

With $g_s[t]$ the gradient that reaches the spikes, $g_v[t]$ the one that reaches the membrane after the reset, $g$ the
surrogate at $u[t] - \theta$, and $g_x[t] = g_u[t]$ that of the current:

$$g_u[t] = g_s[t]\, g + g_v[t]\, \frac{\partial v[t]}{\partial u[t]}, \qquad
  \frac{\partial v}{\partial u} = \begin{cases}
    1 - s - (u - r)\,g & \text{hard} \\ 1 - \theta\,g & \text{soft} \\ 1 & \text{none}
    \\ 1 - s,\; 1 & \text{the first two, reset detached}
  \end{cases}$$
$$g_v[t-1] = \lambda\, g_u[t], \qquad g_\lambda = \sum_t g_u[t]\, v[t-1]$$

Where the input decays too, $g_x[t] = (1 - \lambda)\, g_u[t]$, and $g_\lambda$ has $v[t-1] - x[t]$ for $v[t-1]$.

The same source serves a CPU (C++) and a GPU (Triton). Loops over time are unrolled.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shortback.errors import UserError
from shortback.ops.dynamics import Dynamics
from shortback.torch_private import compile_whole, has_compiled, is_transformed, may_change_in_size, without_autocast


@dataclass(frozen=True)
class Kind:
    """The neuron a kernel is compiled for. A `decay` of None comes as a tensor instead."""

    dynamics: Dynamics
    decay: float | None
    num_steps: int

    @classmethod
    def of(cls, dynamics: Dynamics, decay: float | Tensor, num_steps: int) -> Kind:
        return cls(dynamics, None if isinstance(decay, Tensor) else float(decay), num_steps)

    def leak(self, decay: Tensor | None, dtype: torch.dtype) -> float | Tensor:
        if decay is not None:
            return decay.to(dtype)
        assert self.decay is not None
        return self.decay


class Membranes(NamedTuple):
    """By step: the current, the membrane before firing, whether it fired, that after the reset (the initial first)."""

    currents: Sequence[Tensor]
    before: list[Tensor]
    fired: list[Tensor]
    after: list[Tensor]


class Gradients(NamedTuple):
    """Of the current by step, of the initial membrane, and of the decay (None if it is a constant)."""

    currents: list[Tensor]
    initial: Tensor
    decay: Tensor | None


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What membranes and sums are held in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def integrate(kind: Kind, currents: Sequence[Tensor], *, decay: Tensor | None, initial: Tensor | None) -> Membranes:
    """The membrane through time; `currents` has one tensor a step, in the dtype of the membrane."""
    dynamics = kind.dynamics
    dtype = currents[0].dtype
    leak = kind.leak(decay, dtype)
    v = torch.full_like(currents[0], dynamics.initial) if initial is None else initial.to(dtype)
    membranes = Membranes(currents, [], [], [v])
    for current in currents:
        u = leak * v + ((1 - leak) * current if dynamics.decay_input else current)
        fired = u > dynamics.threshold if dynamics.fires_above else u >= dynamics.threshold
        after = {"hard": dynamics.reset_to, "soft": u - dynamics.threshold, "none": u}[dynamics.reset]
        v = torch.where(fired, after, u)
        membranes.before.append(u)
        membranes.fired.append(fired)
        membranes.after.append(v)
    return membranes


def walk_back(
    kind: Kind, membranes: Membranes, *, grad_spikes: Sequence[Tensor], grad_state: Tensor | None, decay: Tensor | None
) -> Gradients:
    """The gradients of a sequence from the gradients of its spikes, one tensor a step, and of its last membrane."""
    first = membranes.before[0]
    leak = kind.leak(decay, first.dtype)
    grad_v = torch.zeros_like(first) if grad_state is None else grad_state.to(first.dtype)
    grad_us: list[Tensor] = []
    for u, fired, grad in reversed(list(zip(membranes.before, membranes.fired, grad_spikes, strict=True))):
        surrogate = kind.dynamics.surrogate.gradient(u - kind.dynamics.threshold)
        grad_u = grad * surrogate + grad_v * _reset_derivative(kind.dynamics, u, fired, surrogate)
        grad_us.insert(0, grad_u)
        grad_v = leak * grad_u
    grad_decay = None
    if decay is not None:
        factors = membranes.after[:-1]
        if kind.dynamics.decay_input:
            factors = [v - x for v, x in zip(factors, membranes.currents, strict=True)]
        products = [grad_u * factor for grad_u, factor in zip(grad_us, factors, strict=True)]
        grad_decay = total(products).sum().to(decay.dtype).reshape(decay.shape)
    if kind.dynamics.decay_input:
        grad_us = [(1 - leak) * grad_u for grad_u in grad_us]
    return Gradients(grad_us, grad_v, grad_decay)


def _reset_derivative(dynamics: Dynamics, u: Tensor, fired: Tensor, surrogate: Tensor) -> Tensor | float:
    """The derivative of the membrane after the reset by the one before it."""
    if dynamics.reset == "none":
        return 1.0
    if dynamics.reset == "hard":
        kept = torch.where(fired, 0.0, torch.ones_like(u))
        return kept if dynamics.detach_reset else kept - (u - dynamics.reset_to) * surrogate
    return 1.0 if dynamics.detach_reset else 1 - dynamics.threshold * surrogate


def total(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of some tensors, one at least."""
    return sum(tensors[1:], tensors[0])


def as_spikes(fired: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """`[T, ...]` of zeros and ones, from what fired by step."""
    # By way of float32: that conversion is vectorised, the one from bool to bfloat16 is not. Converted before they are
    # stacked, the spikes are written once.
    return torch.stack([torch.where(s, 1.0, 0.0).to(dtype) for s in fired])


def run(body: Callable, constants: tuple[Any, ...], *tensors: Tensor | None) -> Any:
    """Call `body(*constants, *tensors)` compiled; as it stands within a graph that is compiled, or a transform.

    Once compiled, a kernel serves all sizes: of a tensor with two axes or more the first is a number of steps and a
    constant, all others are free. Constants must be hashable, and tensors contiguous. For another number of threads,
    for tensors of inference mode and for deterministic algorithms there are kernels of their own: Dynamo compiles for
    these too, and gives up on one that it has compiled eight times.
    """
    if torch.compiler.is_compiling() or is_transformed(*tensors):
        return body(*constants, *tensors)
    detached = [None if tensor is None else tensor.detach() for tensor in tensors]
    modes = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    key = body, constants, modes, tuple(map(_signature, detached))
    kernel = _KERNELS.get(key)
    if kernel is None:
        kernel = _KERNELS[key] = _Kernel.of(body, constants)
    if not has_compiled(kernel.code):  # `torch.compiler.reset()` forgets what was compiled, but not whom it was for
        for tensor in detached:
            _mark_any_size(tensor)
    return without_autocast(kernel.call, *detached)


class _Kernel(NamedTuple):
    """A compiled function, and the code object that Dynamo keeps what it compiled by."""

    call: Callable
    code: types.CodeType

    @classmethod
    def of(cls, body: Callable, constants: tuple[Any, ...]) -> _Kernel:
        def kernel(*tensors: Tensor | None):
            return body(*constants, *tensors)

        # Dynamo counts recompilations by code object: with one of its own, a kernel is not charged for the others.
        code = kernel.__code__.replace()
        own = types.FunctionType(code, kernel.__globals__, body.__name__, None, kernel.__closure__)
        # Not dynamic=True, which would make the numbers of the kind variables of the kernel too.
        return cls(compile_whole(own), code)


_KERNELS: dict[Any, _Kernel] = {}


def _mark_any_size(tensor: Tensor | None) -> None:
    if tensor is None:
        return
    for axis in range(1 if tensor.ndim > 1 else 0, tensor.ndim):
        may_change_in_size(tensor, axis)


def _signature(tensor: Tensor | None) -> Any:
    """All that a kernel is compiled for in a tensor: its sizes of 1 and number of steps too."""
    if tensor is None:
        return None
    steps = tensor.shape[0] if tensor.ndim > 1 else None
    return tensor.dtype, tensor.device, tensor.is_inference(), steps, tuple(size == 1 for size in tensor.shape)


def refuse_second_derivative() -> None:
    """What a backward pass by kernels begins with: its gradients are constants, and a graph of them would be wrong.

    Raises:
        ValueError: gradients that are to be differentiated once more, as `create_graph=True` has it.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise UserError(
            "create_graph=True: the kernels of compiled neurons have no second derivative; make the neurons with "
            "backend='reference', e.g. functools.partial(LIF, backend='reference'), or take both "
            "by torch.func.grad or jacrev: forward mode, as in torch.func.hessian and jvp, has none"
        )


def num_kernels() -> int:
    """How many kernels were compiled in this process."""
    return len(_KERNELS)
