r"""Optimizer and learning rate.

The learning rate is a pure function of the step: linear from 0 over the warm-up, then a cosine to its final value.
Weight decay is on weights of two and more dimensions alone: not on biases, norms, or learned decays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from shortback.choices import OptimizerKind, check_choice
from shortback.errors import UserError


def build_optimizer(
    net: nn.Module,
    *,
    kind: OptimizerKind = "sgd",
    lr: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 1e-4,
) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters of `net`, in two groups: with weight decay and without."""
    check_choice("kind", kind, OptimizerKind)
    parameters = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=lr)


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    r"""Learning rate by step: $\eta_{max} \frac{i + 1}{W}$ for $W$ steps of warm-up, then a half cosine to `final`.

    Args:
        peak: the largest learning rate.
        total_steps: of the whole training.
        warmup_steps: less than `total_steps`.
        final: the learning rate that the last step comes close to.
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.total_steps:
            raise UserError(
                f"the warm-up of {self.warmup_steps} steps must be shorter than the training of {self.total_steps}"
            )

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        q = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final + 0.5 * (self.peak - self.final) * (1 + math.cos(math.pi * q))
