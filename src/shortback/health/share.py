"""Compare the gradient that the branches bring to the first layer with that of the main output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.health.graph import first_used, gradients
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import in_training, undisturbed
from shortback.losses import ShortcutLoss
from shortback.outputs import Outputs


class Balance(NamedTuple):
    """Gradient norms of the weight that a forward uses first, among those of two or more dimensions.

    Attributes:
        main: norm of the gradient through the main output; nan if the network returned no branches.
        branches: norm of the gradient through the branches; 0 if everything before them is frozen.
    """

    main: float
    branches: float

    @property
    def share(self) -> float:
        r"""The branches' share, $\lVert g_b \rVert / (\lVert g_m \rVert + \lVert g_b \rVert)$; 0 where both are 0."""
        return self.branches / (self.main + self.branches) if self.branches else 0.0


def branch_share(net: nn.Module, x: Tensor, target: Tensor, *, loss: ShortcutLoss, coefficient: float) -> float:
    """The branches' share of the gradient of the first layer's weight, see `first_layer_balance` for the arguments."""
    return first_layer_balance(net, x, target, loss=loss, coefficient=coefficient).share


def first_layer_balance(
    net: nn.Module, x: Tensor, target: Tensor, *, loss: ShortcutLoss, coefficient: float
) -> Balance:
    """Measure the gradient that reaches the first layer through the main output and through the branches.

    Runs one forward in training mode; parameters, their gradients, buffers and the random state are left as they were.

    Args:
        net: a network that `attach` returned.
        x: a batch for the network.
        target: its classes `[N]` or probabilities `[N, K]`.
        loss: the combined loss.
        coefficient: the coefficient of the branches.
    """
    with undisturbed(net, x), torch.enable_grad():
        reset_states(net)
        outputs: Outputs | Tensor = in_training(net)(x.clone())
        if isinstance(outputs, Tensor) or not outputs.branches:
            return Balance(math.nan, 0.0)
        logits, branches = outputs
        weights = [p for p in net.parameters() if p.requires_grad and p.ndim >= 2]
        first = first_used((logits, *branches.values()), weights)
        if first is None:
            return Balance(0.0, 0.0)
        alone = Outputs(logits, {k: v.detach() for k, v in branches.items()}), Outputs(logits.detach(), branches)
        return Balance(*(_norm(loss(part, target, coefficient=coefficient).total, first) for part in alone))


def main_over_branches(
    net: nn.Module, x: Tensor, target: Tensor, *, loss: ShortcutLoss, coefficient: float = 0.5
) -> float:
    """The first layer's gradient norm through the main output over its norm through the branches, for `Adaptive`.

    Both are scaled to coefficient 1. The ratio is infinite if no gradient comes through the branches.

    Args:
        net: a network that `attach` returned.
        x: a batch.
        target: its classes, or probabilities.
        loss: the training loss.
        coefficient: the coefficient to measure at, above 0 (and below 1 for a convex sum); the norms are then divided
            by their coefficients. Where logits are added, the ratio still depends on it, as does the gradient.

    Raises:
        ValueError: the coefficient is outside these bounds.
    """
    if not 0 < coefficient < (1 if loss.combine == "convex" else math.inf):
        raise UserError(f"coefficient={coefficient:g}: must be above 0, and below 1 with combine='convex'")
    main, branches = first_layer_balance(net, x, target, loss=loss, coefficient=coefficient)
    branches /= coefficient
    if loss.combine == "convex":
        main /= 1 - coefficient
    return main / branches if branches else math.inf


def settled_ratio(
    net: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    loss: ShortcutLoss,
    coefficient_of: Callable[[float], float],
    ratio: float = 1.0,
) -> float:
    """`main_over_branches`, measured at the coefficient that the schedule derives from it, to 2 %.

    Where losses are added, one measurement suffices. Where logits are added, the gradient depends on the coefficient,
    so the ratio is measured again at the coefficient that follows from it, 8 times at most.

    Args:
        net: a network that `attach` returned.
        x: a batch.
        target: its classes, or probabilities.
        loss: the training loss.
        coefficient_of: the coefficient as a function of the ratio, such as `schedules.Adaptive` at some progress.
        ratio: the ratio to begin with.
    """
    if loss.combine != "logits":
        return main_over_branches(net, x, target, loss=loss)
    coefficient = coefficient_of(ratio)
    for _ in range(8):
        ratio = main_over_branches(net, x, target, loss=loss, coefficient=coefficient or 0.5)
        before, coefficient = coefficient, coefficient_of(ratio)
        if abs(coefficient - before) <= 0.02 * before:
            break
    return ratio


def _norm(loss: Tensor, weight: Tensor) -> float:
    (gradient,) = gradients([loss], [weight], [torch.ones_like(loss)], keep=True)
    return 0.0 if gradient is None else gradient.float().norm().item()
