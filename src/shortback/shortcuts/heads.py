"""What a branch computes from the activation it taps."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class HeadFactory(Protocol):
    """Makes the head of one branch: a module `[N, in_features] -> [N, num_classes]`."""

    def __call__(self, in_features: int, num_classes: int) -> nn.Module: ...


def linear_head(in_features: int, num_classes: int) -> nn.Module:
    r"""A branch of the paper, $O_k = W_k\, \mathrm{GAP}(\overline{s_k}) + b_k$, on averages over space and time."""
    return nn.Linear(in_features, num_classes)


def average_over_space(activation: Tensor) -> Tensor:
    """`[B, C, ...]` to `[B, C]`, summed in float32 whatever the precision of the activation."""
    if activation.ndim <= 2:
        return activation
    return activation.mean(tuple(range(2, activation.ndim)), dtype=torch.promote_types(activation.dtype, torch.float32))


def average_over_time(features: Tensor, num_samples: int) -> Tensor:
    """`[T*N, C]` time-major to `[N, C]`; features without time, `[N, C]`, come out as they are."""
    return features.unflatten(0, (-1, num_samples)).mean(0)
