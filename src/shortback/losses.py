r"""The losses: cross entropy on the mean over time, TET, and their combination with the branches.

With main output $O$, branch outputs $O_k$, branch weights $w_k$ and balance coefficient $c$:

$$L = \mathrm{CE}(O, y) + c \sum_k w_k \mathrm{CE}(O_k, y) \quad\text{(additive)}$$
$$L = (1 - c)\, \mathrm{CE}(O, y) + c \sum_k w_k \mathrm{CE}(O_k, y) \quad\text{(convex)}$$

$w_k$ is 1 (`"sum"`) or $1/K$ (`"mean"`). The idea and the coefficient are those of Guo et al. (NeurIPS 2024); its text
given to this project prints no formula, so both forms and both weights are Shortback's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Combine = Literal["additive", "convex"]
BranchWeights = Literal["sum", "mean"]


class Outputs(NamedTuple):
    """What a network with shortcut branches returns.

    Attributes:
        logits: of the main output, `[N, K]` (or `[T, N, K]` where the readout keeps the steps).
        branches: logits of each branch by its place, `[N, K]`; empty in `eval()`.
    """

    logits: Tensor
    branches: dict[str, Tensor]


class LossTerms(NamedTuple):
    """The combined loss and what it was made of, each a scalar; `branches` are before weight and coefficient."""

    total: Tensor
    main: Tensor
    branches: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross entropy of the mean over time.

    Args:
        label_smoothing: in [0, 1).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing!r}: must be in [0, 1)")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch of `[N, K]` or `[T, N, K]` logits against classes `[N]` or probabilities `[N, K]`."""
        return F.cross_entropy(mean_over_time(logits), target, label_smoothing=self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class TET(CrossEntropy):
    r"""Temporal efficient training (Deng et al., ICLR 2022, eq. 9 and 10).

    $$L = (1 - \lambda) \tfrac{1}{T} \sum_t \mathrm{CE}(O[t], y)
    + \lambda \tfrac{1}{T} \sum_t \mathrm{MSE}(O[t], \phi)$$

    Args:
        weight: $\lambda$ of the regulariser.
        target_potential: $\phi$, usually the threshold.
    """

    weight: float = 0.05
    target_potential: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight={self.weight!r}: must be in [0, 1]")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of `[T, N, K]` logits.

        Raises:
            ValueError: logits without a time axis.
        """
        if logits.ndim != 3:
            raise ValueError(
                f"TET needs logits of every step, [T, N, K], and got {list(logits.shape)}: "
                "set the network's readout to 'steps'"
            )
        per_step = torch.stack(
            [F.cross_entropy(step, target, label_smoothing=self.label_smoothing) for step in logits.unbind(0)]
        )
        regulariser = (logits - self.target_potential).square().mean()
        return (1 - self.weight) * per_step.mean() + self.weight * regulariser


@dataclass(frozen=True, kw_only=True)
class ShortcutLoss:
    """The loss of a network with shortcut branches.

    Args:
        main: loss of the main output.
        branch: loss of every branch.
        combine: `"additive"` or `"convex"`.
        branch_weights: `"sum"` or `"mean"`.

    Raises:
        ValueError: an unknown name.
    """

    main: CrossEntropy = field(default_factory=CrossEntropy)
    branch: CrossEntropy = field(default_factory=CrossEntropy)
    combine: Combine = "additive"
    branch_weights: BranchWeights = "sum"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("combine", self.combine, get_args(Combine)),
            ("branch_weights", self.branch_weights, get_args(BranchWeights)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: must be one of {', '.join(allowed)}")

    def __call__(self, outputs: Outputs | Tensor, target: Tensor, *, coefficient: float | Tensor) -> LossTerms:
        """Combine the terms; without branches the total is the main loss, whatever the coefficient.

        Args:
            outputs: of the network; plain logits are taken as a network without branches.
            target: classes `[N]`, or probabilities `[N, K]`.
            coefficient: the balance coefficient, 0 or more; for `"convex"` at most 1.
        """
        if isinstance(outputs, Tensor):
            outputs = Outputs(outputs, {})
        main = self.main(outputs.logits, target)
        terms = {name: self.branch(logits, target) for name, logits in outputs.branches.items()}
        if not terms:
            return LossTerms(main, main, terms)
        branches = torch.stack(list(terms.values()))
        branches = branches.sum() if self.branch_weights == "sum" else branches.mean()
        share = 1.0 if self.combine == "additive" else 1 - coefficient
        return LossTerms(share * main + coefficient * branches, main, terms)


def shortcut_loss(
    outputs: Outputs | Tensor,
    target: Tensor,
    *,
    coefficient: float | Tensor,
    combine: Combine = "additive",
    branch_weights: BranchWeights = "sum",
    label_smoothing: float = 0.0,
) -> LossTerms:
    """Cross entropy on the main output and every branch, combined; `ShortcutLoss` takes other losses.

    Args:
        outputs: of a network that `attach` made.
        target: classes `[N]`, or probabilities `[N, K]`.
        coefficient: the balance coefficient $c$.
        combine: `"additive"` or `"convex"`.
        branch_weights: `"sum"` or `"mean"` over the branches.
        label_smoothing: in [0, 1), for every term.
    """
    entropy = CrossEntropy(label_smoothing=label_smoothing)
    loss = ShortcutLoss(main=entropy, branch=entropy, combine=combine, branch_weights=branch_weights)
    return loss(outputs, target, coefficient=coefficient)


def mean_over_time(logits: Tensor) -> Tensor:
    """`[T, N, K]` logits to `[N, K]`; `[N, K]` ones pass."""
    return logits.mean(0) if logits.ndim == 3 else logits
