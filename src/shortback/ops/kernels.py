r"""Building blocks of the compiled operations: the membrane through time, its gradients, and the compilation.

With $g_s[t]$ the gradient that reaches the spikes, $g_v[t]$ that of the membrane after the reset, $g$ the surrogate at
$u[t] - \theta$, and $g_x[t] = g_u[t]$ the gradient of the current:

$$g_u[t] = g_s[t]\, g + g_v[t]\, \frac{\partial v[t]}{\partial u[t]}, \qquad
  \frac{\partial v}{\partial u} = \begin{cases}
    1 - s - (u - r)\,g & \text{hard} \\ 1 - \theta\,g & \text{soft} \\ 1 & \text{none}
    \\ 1 - s,\; 1 & \text{the first two, reset detached}
  \end{cases}$$
$$g_v[t-1] = \lambda\, g_u[t], \qquad g_\lambda = \sum_t g_u[t]\, v[t-1]$$

With `decay_input`, $g_x[t] = (1 - \lambda)\, g_u[t]$, and $v[t-1] - x[t]$ replaces $v[t-1]$ in $g_\lambda$.

The same source is compiled for CPUs (C++) and GPUs (Triton). Loops over time are unrolled.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shortback.errors import UserError
from shortback.ops.dynamics import Dynamics
from shortback.ops.stored import load_or_compile
from shortback.torch_private import compile_whole, has_compiled, is_transformed, mark_dynamic, without_autocast


@dataclass(frozen=True)
class Kind:
    """The neuron that a kernel is compiled for; if `decay` is None, kernels get a learned decay as a tensor."""

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
    """Per step: the current, the membrane `before` firing, whether the neuron `fired`, and the membrane `after` reset.

    `after` has one more entry, the initial membrane, at its start.
    """

    currents: Sequence[Tensor]
    before: list[Tensor]
    fired: list[Tensor]
    after: list[Tensor]


class Gradients(NamedTuple):
    """Gradients of the current at each step, of the initial membrane, and of the decay (None if it is a constant)."""

    currents: list[Tensor]
    initial: Tensor
    decay: Tensor | None


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of membranes and sums: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def integrate(kind: Kind, currents: Sequence[Tensor], *, decay: Tensor | None, initial: Tensor | None) -> Membranes:
    """Run the membrane through time; `currents` has one tensor per step, in the dtype of the membrane."""
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
    """Compute a sequence's gradients from the gradients of its spikes, a tensor per step, and last membrane."""
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
    """Return the derivative of the membrane after the reset with respect to the membrane before it."""
    if dynamics.reset == "none":
        return 1.0
    if dynamics.reset == "hard":
        kept = torch.where(fired, 0.0, torch.ones_like(u))
        return kept if dynamics.detach_reset else kept - (u - dynamics.reset_to) * surrogate
    return 1.0 if dynamics.detach_reset else 1 - dynamics.threshold * surrogate


def total(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of one or more tensors."""
    return sum(tensors[1:], tensors[0])


def as_spikes(fired: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Stack the booleans of each step to spikes `[T, ...]` of zeros and ones."""
    # The conversion from float32 to bfloat16 is vectorised, that from bool is not. Converting before stacking writes
    # the spikes only once.
    return torch.stack([torch.where(s, 1.0, 0.0).to(dtype) for s in fired])


def run(body: Callable, constants: tuple[Any, ...], *tensors: Tensor | None) -> Any:
    """Return `body(*constants, *tensors)`, compiled unless a graph is being compiled or a transform is active.

    Once compiled, a kernel serves all sizes, except that the first axis of a tensor with two axes or more counts steps
    and is a constant. Constants must be hashable, and tensors contiguous. Each number of threads, inference mode and
    deterministic algorithms have kernels of their own: Dynamo recompiles for these too, and gives up on a function that
    it has compiled eight times.
    """
    if torch.compiler.is_compiling() or is_transformed(*tensors):
        return body(*constants, *tensors)
    detached = [None if tensor is None else tensor.detach() for tensor in tensors]
    modes = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    key = body, constants, modes, tuple(map(_signature, detached))
    kernel = _KERNELS.get(key)
    if kernel is None:
        kernel = _KERNELS[key] = _Kernel(body, constants)
        without_autocast(partial(kernel.prepare, key[1:]), *detached)
    return without_autocast(kernel, *detached)


class _Kernel:
    """A compiled function: the kernel stored on disk, and one by Dynamo for the calls that the stored one does not fit.

    Attributes:
        code: the code object under which Dynamo stores what it compiles.
    """

    def __init__(self, body: Callable, constants: tuple[Any, ...]) -> None:
        def kernel(*tensors: Tensor | None):
            return body(*constants, *tensors)

        # Dynamo limits recompilations per code object: with its own, a kernel does not count towards others.
        self.code = kernel.__code__.replace()
        own = types.FunctionType(self.code, kernel.__globals__, body.__name__, None, kernel.__closure__)
        # Not dynamic=True, which would also turn the numbers in the constants into variables of the kernel.
        self._compiled = compile_whole(own)
        self._body = body
        self._stored = None

    def prepare(self, kind: tuple[Any, ...], *tensors: Tensor | None) -> None:
        """Load the kernel, or compile and store it; see `shortback.ops.stored.load_or_compile`."""
        marked = [None if tensor is None else tensor.detach() for tensor in tensors]
        for tensor in marked:
            _mark_any_size(tensor)
        self._stored = load_or_compile(self._compiled, marked, body=self._body, kind=kind)

    def __call__(self, *tensors: Tensor | None) -> Any:
        if self._stored is not None and self._stored.guard_check(*tensors):
            return self._stored(*tensors)
        if not has_compiled(self.code):  # on the first call, and after `torch.compiler.reset()`
            for tensor in tensors:
                _mark_any_size(tensor)
        return self._compiled(*tensors)


_KERNELS: dict[Any, _Kernel] = {}


def _mark_any_size(tensor: Tensor | None) -> None:
    if tensor is None:
        return
    for axis in range(1 if tensor.ndim > 1 else 0, tensor.ndim):
        mark_dynamic(tensor, axis)


def _signature(tensor: Tensor | None) -> Any:
    """Return the properties of a tensor that a kernel is compiled for, including its sizes of 1 and number of steps."""
    if tensor is None:
        return None
    steps = tensor.shape[0] if tensor.ndim > 1 else None
    return tensor.dtype, tensor.device, tensor.is_inference(), steps, tuple(size == 1 for size in tensor.shape)


def refuse_second_derivative() -> None:
    """Refuse double differentiation in a backward pass by kernels, whose results autograd would take for constants.

    Raises:
        ValueError: the gradients are to be differentiated again, as with `create_graph=True`.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise UserError(
            "create_graph=True: the kernels of compiled neurons have no second derivative; make the neurons with "
            "backend='reference', e.g. functools.partial(LIF, backend='reference'), or compute both derivatives by "
            "torch.func.grad or jacrev (forward mode, as in torch.func.hessian and jvp, is not supported)"
        )


def num_kernels() -> int:
    """Return the number of kernels compiled in this process."""
    return len(_KERNELS)
