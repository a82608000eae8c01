"""What a branch computes from the activation it taps."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class HeadFactory(Protocol):
    """Makes the head of one branch: a module `[N, in_features] -> [N, num_classes]`."""

    def __call__(self, in_features: int, num_classes: int) -> nn.Module: ...


def linear_head(in_features: int, num_classes: int) -> nn.Module:
    r"""A branch of the paper, $O_k = W_k\, \mathrm{GAP}(\overline{s_k}) + b_k$, on averages over space and time."""
    return nn.Linear(in_features, num_classes)
