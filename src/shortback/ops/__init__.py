"""The neuron as a function of a whole sequence: its definition (`reference`) and a faster equivalent (`compiled`).

`layer` fuses the neuron with the convolution and the norm before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shortback.choices import Backend, Memory, Reset
from shortback.errors import UserError
from shortback.ops import compiled, reference
from shortback.ops.backend import resolve
from shortback.ops.dynamics import Dynamics, as_scalar_decay
from shortback.ops.kernels import num_kernels
from shortback.ops.layer import Convolution, conv_norm_neuron
from shortback.ops.norm import Statistics
from shortback.ops.reference import membranes

__all__ = [
    "Backend",
    "Convolution",
    "Dynamics",
    "Memory",
    "Reset",
    "Statistics",
    "conv_norm_neuron",
    "membranes",
    "multi_step",
    "num_kernels",
    "resolve",
]


def multi_step(
    x: Tensor,
    *,
    dynamics: Dynamics,
    decay: float | Tensor,
    num_steps: int,
    initial: Tensor | None = None,
    return_state: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Run a neuron over a whole sequence with the given backend.

    The membrane is held in float32 (float64 for float64 input) whatever the precision of the input.

    Args:
        x: input current, finite, `[T, ...]`, or `[1, ...]` if it is the same at every step.
        dynamics: of the neuron.
        decay: factor on the membrane per step; a tensor of one element if it is learned.
        num_steps: number of time steps `T`.
        initial: membrane before the first step, `[...]`; `dynamics.initial` everywhere if not given.
        return_state: whether to return the membrane after the last step.
        backend: see `shortback.ops.resolve`.

    Returns:
        The spikes, `[T, ...]` in the dtype of `x`, and the membrane `[...]` or None.

    Raises:
        ValueError: `initial` differs in shape from a step of `x`, or the decay has several elements.
        RuntimeError: `backend="compiled"` does not work on the device.
    """
    decay = as_scalar_decay(decay)
    if initial is not None and initial.shape != x.shape[1:]:
        raise UserError(
            f"a membrane of shape {list(initial.shape)} for an input of shape {list(x.shape[1:])} per step: the shapes "
            "must be the same; pass None to start a sequence"
        )
    # While a graph is being compiled, `torch.compile` is known to work.
    chosen = backend if torch.compiler.is_compiling() else resolve(backend, x.device.type)
    run = reference.multi_step if chosen == "reference" else compiled.multi_step
    return run(x, dynamics=dynamics, decay=decay, num_steps=num_steps, initial=initial, return_state=return_state)
