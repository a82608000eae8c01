"""Along which axis a neuron of anyone's takes its steps, found by running it alone.

What a neuron is given first changes what it puts out later, and nothing that comes later changes what came before. So
it is along the axis of time alone: samples, channels and pixels do not touch each other in a neuron, and where a layer
mixes them it mixes both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.layout import tensor_of
from shortback.inspection.reset import reset_states


@torch.no_grad()
def axes_of_time(neuron: nn.Module, inputs: tuple[Any, ...], which: int | str | None) -> list[int]:
    """The axes that may be of time, as it is seen on the input and on a stronger one; none where it takes one step.

    It runs the neuron, and leaves what that remembers and the random state to who calls.

    Args:
        neuron: any.
        inputs: of one call, a tensor first.
        which: of several tensors that it returns are the spikes.
    """

    def run(x: Tensor) -> Tensor | None:
        torch.manual_seed(0)
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
    """Whether a change of the first along the axis is seen in the others, and one of the last in no other."""
    rest = given.shape[axis] - 1

    def changes(at: int, seen: int) -> bool:
        changed = given.clone()
        changed.narrow(axis, at, 1).sub_(10 * (1 + given.abs().max()))
        now = run(changed)
        return now is not None and not torch.equal(now.narrow(axis, seen, rest), spikes.narrow(axis, seen, rest))

    return changes(0, 1) and not changes(rest, 0)
