"""Heads: what a branch computes from the activation it taps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor, nn


class HeadFactory(Protocol):
    """A function that makes the head of one branch: a module `[N, in_features] -> [N, num_classes]`.

    A head may have another number of outputs if losses are added and the branches have a loss of their own.
    """

    def __call__(self, in_features: int, num_classes: int) -> nn.Module: ...


def linear_head(in_features: int, num_classes: int) -> nn.Module:
    r"""Make the paper's head, $O_k = W_k\, \mathrm{GAP}(\overline{s_k}) + b_k$, on averages over space and time."""
    return nn.Linear(in_features, num_classes)


def cast_for(head: nn.Module, average: Tensor) -> Tensor:
    """Cast an average to the dtype of the head's weights."""
    weight = next(head.parameters(), None)
    return average if weight is None or not weight.is_floating_point() else average.to(weight.dtype)


class Heads(nn.ModuleList):
    """The heads of all branches: printed with their places, numbered in the state dict as in any `nn.ModuleList`."""

    def __init__(self, heads: Iterable[nn.Module] = (), places: Sequence[str] = ()) -> None:
        super().__init__(heads)
        self.places = tuple(places)

    def __repr__(self) -> str:
        if len(self.places) != len(self):  # a slice of the list
            return super().__repr__()
        lines = [f"  {place}: {head}".replace("\n", "\n  ") for place, head in zip(self.places, self, strict=True)]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])
