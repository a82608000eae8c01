"""Read the autograd graph of a forward: how early each weight is used, and its gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from shortback.errors import UserError

Use = tuple[int, int]
"""How early a weight is used, greater is earlier: (operations to the outputs, minus its place among inputs)."""


def first_uses(outputs: Iterable[Tensor], weights: Iterable[Tensor]) -> list[Use | None]:
    """How early each weight is first used, by the longest path back to it from an output; None if there is no path.

    Among the weights of a single operation, such as a network compiled by `torch.compile`, the first input is earliest.

    Args:
        outputs: the outputs of a forward.
        weights: leaves that require a gradient.
    """
    far: dict[Any, Use] = {}
    for node in _from_the_end([output.grad_fn for output in outputs if output.grad_fn is not None]):
        steps, _ = far.setdefault(node, (0, 0))
        for place, (before, _) in enumerate(node.next_functions):
            if before is not None:
                far[before] = max(far.get(before, (0, 0)), (steps + 1, -place))
    return [far.get(get_gradient_edge(weight).node) for weight in weights]


def first_used(outputs: Iterable[Tensor], weights: Sequence[Tensor]) -> Tensor | None:
    """The weight that is used first; None if no output depends on any."""
    uses = zip(first_uses(outputs, weights), weights, strict=True)
    used = [(use, weight) for use, weight in uses if use is not None]
    return max(used, key=lambda pair: pair[0])[1] if used else None


def gradients(
    outputs: Sequence[Tensor], weights: Sequence[Tensor], cotangents: Sequence[Tensor], *, keep: bool
) -> Sequence[Tensor | None]:
    """The gradients of the weights through the outputs; None for a weight on which no output depends.

    Args:
        outputs: outputs of a forward; those that require no gradient are skipped.
        weights: leaves.
        cotangents: the gradient of the loss with respect to every output.
        keep: whether to keep the graph for another call.

    Raises:
        ValueError: a part of the network is checkpointed with `use_reentrant=True`.
    """
    through = [(output, by) for output, by in zip(outputs, cotangents, strict=True) if output.requires_grad]
    if not through:
        return [None] * len(weights)
    results, by = zip(*through, strict=True)
    try:
        return torch.autograd.grad(results, weights, by, retain_graph=keep, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise UserError(
            "a part of the network is checkpointed with use_reentrant=True, which hides its weights from "
            "torch.autograd.grad: write checkpoint(..., use_reentrant=False), which gives the same gradients"
        ) from error


def _from_the_end(nodes: Iterable[Any]) -> list[Any]:
    """The nodes and all their predecessors in the graph, in topological order from the outputs back."""
    found, seen, waiting = [], set(), [(node, False) for node in nodes]
    while waiting:
        node, is_done = waiting.pop()
        if is_done:
            found.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(before, False) for before, _ in node.next_functions if before is not None]
    return found[::-1]
