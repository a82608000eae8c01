r"""The losses: cross entropy on the mean over time, TET, and their combination with the branches.

With main output $O$, branch outputs $O_k$, branch weights $w_k$ and balance coefficient $c$:

$$L = \mathrm{CE}\Big(O + c \sum_k w_k O_k,\, y\Big) \quad\text{(logits)}$$
$$L = \mathrm{CE}(O, y) + c \sum_k w_k \mathrm{CE}(O_k, y) \quad\text{(additive)}$$
$$L = (1 - c)\, \mathrm{CE}(O, y) + c \sum_k w_k \mathrm{CE}(O_k, y) \quad\text{(convex)}$$

$w_k$ is 1 (`"sum"`) or $1/K$ (`"mean"`, $K$ branches). The first loss with $w_k = 1$, one cross entropy of the sum of
all logits, is that of the paper: equations 7 ($c = 1$) and 10 ($c$ falls) of Guo et al. (NeurIPS 2024). The other two,
which sum one loss per output, and `"mean"` are Shortback's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortback.choices import BranchWeights, Combine, check_choice
from shortback.errors import UserError
from shortback.outputs import LossTerms, Outputs, warn_of_eval, warn_of_logits_alone
from shortback.targets import (
    NUMERIC_LOSSES,
    check_classes,
    check_devices,
    check_takes_logits,
    check_target,
    loss_identity,
)

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross entropy of the logits' mean over time.

    Args:
        label_smoothing: in [0, 1).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.label_smoothing, Real) and 0 <= self.label_smoothing < 1):
            raise UserError(f"label_smoothing={self.label_smoothing!r}: must be a number in [0, 1)")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the batch mean for logits `[N, K]` or `[T, N, K]` and classes `[N]` or probabilities `[N, K]`.

        Raises:
            ValueError: see `shortback.targets.check_target`.
        """
        logits, target = check_target(logits, target)
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
        if not (isinstance(self.weight, Real) and 0 <= self.weight <= 1):
            raise UserError(f"weight={self.weight!r}: must be a number in [0, 1]")
        if not (isinstance(self.target_potential, Real) and math.isfinite(self.target_potential)):
            raise UserError(f"target_potential={self.target_potential!r}: must be a finite number")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[T, N, K]`.

        Raises:
            ValueError: the logits have no time axis; see also `shortback.targets.check_target`.
        """
        logits, target = check_target(logits, target)
        if logits.ndim != 3:
            raise UserError(
                f"TET needs the logits of every step, [T, N, K], but got {list(logits.shape)}: "
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
        main: loss of the main output and of the sum of logits: any function of outputs and targets that returns the
            mean over the batch, such as `torch.nn.MSELoss()`.
        branch: loss of each branch, `[N, K]`. By default, a cross entropy with the label smoothing of `main` if that
            is a `CrossEntropy`, else `main` itself. A loss of the same kind as `main`, neither `CrossEntropy` nor from
            `torch.nn`, gets the branch at every step, `[T, N, K]`, if the main output has steps.
        combine: `"logits"` (as in the paper), `"additive"` or `"convex"`, see the formulas of this module.
        branch_weights: `"sum"` or `"mean"`.

    Raises:
        ValueError: a name is unknown, or a loss is not callable or is a class instead of an instance. When called with
            branches: the loss takes probabilities, as `torch.nn.NLLLoss()` does.
    """

    main: Loss = field(default_factory=CrossEntropy)
    branch: Loss | None = None
    combine: Combine = "logits"
    branch_weights: BranchWeights = "sum"

    def __post_init__(self) -> None:
        check_choice("combine", self.combine, Combine)
        check_choice("branch_weights", self.branch_weights, BranchWeights)
        for name, loss in (("main", self.main), ("branch", self.branch or self.main)):
            if isinstance(loss, type) or not callable(loss):
                raise UserError(
                    f"{name}={loss!r}: must be a function of outputs and targets, "
                    "such as CrossEntropy() or torch.nn.MSELoss()"
                )

    @classmethod
    def of(cls, loss: ShortcutLoss | Loss | None) -> ShortcutLoss:
        """Make a `ShortcutLoss` of `loss`: itself, a loss of one output, such as `TET()`, as `main`, or the default.

        Raises:
            ValueError: `loss` is not callable.
        """
        return loss if isinstance(loss, ShortcutLoss) else cls() if loss is None else cls(main=loss)

    def __call__(
        self, outputs: Outputs | Tensor, target: Tensor, *, coefficient: float | Tensor, by_branch: bool = True
    ) -> LossTerms:
        """Return the combined loss and its terms; without branches, the total is the main loss.

        Args:
            outputs: of the network; plain logits are treated as a network without branches.
            target: classes `[N]`, or probabilities `[N, K]`.
            coefficient: the balance coefficient, 0 or more; for `"convex"` at most 1.
            by_branch: whether to compute the loss of each branch where the total does not need it (`"logits"`).

        Raises:
            ValueError: `coefficient` is outside its range; the value of a tensor is not checked.
        """
        coefficient = self._checked(coefficient)
        if not isinstance(outputs, Outputs):
            warn_of_logits_alone(outputs, coefficient)
            outputs = Outputs(outputs, {})
        if not outputs.branches:
            warn_of_eval(outputs.branches, outputs.logits, coefficient)
            main = apply_loss(self.main, outputs.logits, target)
            return LossTerms(main, main, {})
        if self.combine == "logits" or self.branch is None:  # branches with their own loss also have heads to suit it
            check_takes_logits(self.main)
        if self.combine == "logits":
            total = apply_loss(self.main, self.combined_logits(outputs, coefficient=coefficient), target)
            with torch.no_grad():
                main = apply_loss(self.main, outputs.logits, target)
                return LossTerms(total, main, self._by_branch(outputs, target) if by_branch else {})
        main, terms = apply_loss(self.main, outputs.logits, target), self._by_branch(outputs, target)
        branches = torch.stack(list(terms.values()))
        branches = branches.sum() if self.branch_weights == "sum" else branches.mean()
        share = 1.0 if self.combine == "additive" else 1 - coefficient
        return LossTerms(share * main + coefficient * branches, main, terms)

    def combined_logits(self, outputs: Outputs | Tensor, *, coefficient: float | Tensor) -> Tensor:
        r"""Return the logits that training classifies by: $O + c \sum_k w_k O_k$ for `"logits"`, otherwise $O$.

        Branches have no steps, so the same sum of branches is added to each step of main logits `[T, N, K]`; the mean
        over time is then the sum of the means. The sum is in the precision of the main output, but at least float32.

        Raises:
            ValueError: a branch has a different number of outputs.
        """
        if isinstance(outputs, Tensor) or not outputs.branches or self.combine != "logits":
            return outputs if isinstance(outputs, Tensor) else outputs.logits
        num_classes = outputs.logits.shape[-1]
        for name, branch in outputs.branches.items():
            if branch.shape[-1] != num_classes:
                raise UserError(
                    f"the branch at {name} has {branch.shape[-1]} outputs, and the network {num_classes}: their logits "
                    "are added, so the head of the branch must have as many"
                )
        branches = torch.stack(list(outputs.branches.values()))
        dtype = torch.promote_types(outputs.logits.dtype, torch.float32)
        added = branches.sum(0, dtype=dtype) if self.branch_weights == "sum" else branches.mean(0, dtype=dtype)
        return outputs.logits + coefficient * added

    def _by_branch(self, outputs: Outputs, target: Tensor) -> dict[str, Tensor]:
        loss = self.branch or self.main
        if self.branch is None and isinstance(self.main, CrossEntropy):  # TET needs steps, which branches do not have
            loss = CrossEntropy(label_smoothing=self.main.label_smoothing)
        # A user's function may read the first axis as time. Losses that average over time need no such axis.
        averages = type(loss) is CrossEntropy or isinstance(loss, nn.modules.loss._Loss)
        is_alike = loss_identity(loss) == loss_identity(self.main)
        steps = outputs.logits.shape[:-2] if is_alike and not averages else ()
        return {name: apply_loss(loss, o.expand(*steps, *o.shape), target) for name, o in outputs.branches.items()}

    def _checked(self, coefficient: float | Tensor) -> float | Tensor:
        if callable(coefficient) and not isinstance(coefficient, Tensor):
            raise UserError(f"coefficient={coefficient!r}: is a function; pass its value, schedule(step / total_steps)")
        if not isinstance(coefficient, Tensor | Real):
            raise UserError(f"coefficient={coefficient!r}: must be a number")
        largest = 1.0 if self.combine == "convex" else math.inf
        if not isinstance(coefficient, Tensor) and not (0 <= coefficient <= largest and coefficient < math.inf):
            allowed = "between 0 and 1" if self.combine == "convex" else "0 or a positive number"
            raise UserError(f"coefficient={coefficient!r}: must be {allowed} for combine={self.combine!r}")
        # A NumPy scalar would multiply a tensor as an array.
        return coefficient if isinstance(coefficient, Tensor) else float(coefficient)


def shortcut_loss(
    outputs: Outputs | Tensor,
    target: Tensor,
    *,
    coefficient: float | Tensor,
    combine: Combine = "logits",
    branch_weights: BranchWeights = "sum",
    label_smoothing: float = 0.0,
) -> LossTerms:
    """Combine the cross entropies of the main output and the branches; `ShortcutLoss` takes other losses.

    Args:
        outputs: of a network that `attach` returned.
        target: classes `[N]`, or probabilities `[N, K]`.
        coefficient: the balance coefficient $c$: 1 for equation 7 of the paper, from 0.25 to 0 for equation 10.
        combine: `"logits"`, one cross entropy of the sum of all logits (as in the paper); `"additive"` or `"convex"`,
            a sum of one cross entropy per output (Shortback's own).
        branch_weights: `"sum"` or `"mean"` over the branches.
        label_smoothing: in [0, 1).

    Raises:
        ValueError: a name is unknown, or a number is outside its range.
    """
    entropy = CrossEntropy(label_smoothing=label_smoothing)
    loss = ShortcutLoss(main=entropy, branch=entropy, combine=combine, branch_weights=branch_weights)
    return loss(outputs, target, coefficient=coefficient)


def classes_of(target: Tensor, *, loss: object) -> Tensor | None:
    """Return the classes `[N]` of a target, to count hits: the target itself, or the most probable class of each row.

    Args:
        target: of a batch, classes `[N]` or floating-point numbers.
        loss: of the main output; only a cross entropy reads numbers `[N, K]` as probabilities.

    Returns:
        The classes, or None for regression and multi-label targets, which have no accuracy.

    Raises:
        ValueError: classes in more than one dimension, such as one per pixel.
    """
    if isinstance(loss, NUMERIC_LOSSES):
        return None
    if target.is_floating_point():
        is_probable = target.ndim == 2 and isinstance(loss, CrossEntropy | nn.CrossEntropyLoss)
        return target.argmax(1) if is_probable else None
    check_classes(target)
    return target


def apply_loss(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss of one output.

    Losses of `torch.nn` get the mean over time, and if they compare numbers, integer targets as float32.

    Raises:
        ValueError: for a loss of `torch.nn`: its reduction is not a mean; `shortback.targets.check_target` refuses the
            target of a cross entropy; numeric targets have another shape than the outputs, which would broadcast.
    """
    if not isinstance(loss, nn.modules.loss._Loss):
        return loss(logits, target)
    if loss.reduction != "mean" and not (isinstance(loss, nn.KLDivLoss) and loss.reduction == "batchmean"):
        raise UserError(
            f"{type(loss).__name__}(reduction={loss.reduction!r}): the loss of a batch must be a mean, use 'mean'"
        )
    check_devices(logits, target)
    if isinstance(loss, nn.CrossEntropyLoss):
        logits, target = check_target(logits, target, in_range=False)  # it may have an ignore_index
    logits = mean_over_time(logits)
    if (target.is_floating_point() or isinstance(loss, NUMERIC_LOSSES)) and logits.shape != target.shape:
        raise UserError(
            f"{type(loss).__name__}: outputs of shape {list(logits.shape)} and targets of shape {list(target.shape)}, "
            "which would broadcast: give targets the shape of the outputs"
        )
    if isinstance(loss, NUMERIC_LOSSES) and not target.is_floating_point():
        # Some losses fail on integers; MultiLabelMarginLoss takes nothing else, as its targets are indices of labels.
        target = target.long() if isinstance(loss, nn.MultiLabelMarginLoss) else target.float()
    return loss(logits, target)


def mean_over_time(logits: Tensor) -> Tensor:
    """Average logits `[T, N, K]` over time to `[N, K]`; return `[N, K]` unchanged."""
    return logits.mean(0) if logits.ndim == 3 else logits
