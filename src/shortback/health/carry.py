"""Find the time axis of a neuron of any library by running it alone.

Along the time axis an early input changes later outputs, and a late input changes no earlier output. No other axis
behaves like this: in a neuron, samples, channels and pixels do not affect each other, and a layer that mixes them does
so in both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.generators import seed_generators
from shortback.inspection.layout import tensor_of
from shortback.inspection.reset import reset_states


@torch.no_grad()
def axes_of_time(neuron: nn.Module, inputs: tuple[Any, ...], which: int | str | None) -> list[int]:
    """The axes that may be time, found with the given input or, if that shows none, a stronger one.

    The list is empty if neither does, as for a neuron that takes one step. The caller has to restore the states of the
    neuron and the random state.

    Args:
        neuron: any module.
        inputs: the arguments of one call, the first of which is a tensor.
        which: which of several returned tensors are the spikes.
    """

    def run(x: Tensor) -> Tensor | None:
        seed_generators(0)
        reset_states(neuron)
        return tensor_of(neuron(x.clone(), *inputs[1:]), which)

    x = inputs[0]
    found: set[int] = set()
    for given in (x, 4 * torch.rand_like(x)):
        spikes = run(given)
        if spikes is not None:
            sized_alike = (a for a in range(min(x.ndim, spikes.ndim)) if 1 < x.shape[a] == spikes.shape[a])
            found |= {axis for axis in sized_alike if _runs_along(axis, given, spikes, run)}
        if found:
            break
    return sorted(found)


def _runs_along(axis: int, given: Tensor, spikes: Tensor, run: Callable[[Tensor], Tensor | None]) -> bool:
    """Whether changing the first input along an axis changes later outputs, and changing the last no earlier one."""
    rest = given.shape[axis] - 1

    def changes(at: int, seen: int) -> bool:
        changed = given.clone()
        changed.narrow(axis, at, 1).sub_(10 * (1 + given.abs().max()))
        now = run(changed)
        return now is not None and not torch.equal(now.narrow(axis, seen, rest), spikes.narrow(axis, seen, rest))

    return changes(0, 1) and not changes(rest, 0)
