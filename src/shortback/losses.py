r"""The losses: cross entropy on the mean over time, TET, and their combination with the branches.

With main output $O$, branch outputs $O_k$, branch weights $w_k$ and balance coefficient $c$:

$$L = \mathrm{CE}\Big(O + c \sum_k w_k O_k,\, y\Big) \quad\text{(logits)}$$
$$L = \mathrm{CE}(O, y) + c \sum_k w_k \mathrm{CE}(O_k, y) \quad\text{(additive)}$$
$$L = (1 - c)\, \mathrm{CE}(O, y) + c \sum_k w_k \mathrm{CE}(O_k, y) \quad\text{(convex)}$$

$w_k$ is 1 (`"sum"`) or $1/K$ (`"mean"`). The first, with $w_k = 1$, is the paper's: equations 7 ($c = 1$) and 10 ($c$
falls) of Guo et al. (NeurIPS 2024), one cross entropy of the sum of all logits. The other two, sums of one loss for
each output, and `"mean"`, are Shortback's.
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
from shortback.targets import OF_NUMBERS, check_classes, check_devices, check_takes_logits, check_target, kind_of

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross entropy of the mean over time.

    Args:
        label_smoothing: in [0, 1).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing={self.label_smoothing!r}: must be in [0, 1)")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch of `[N, K]` or `[T, N, K]` logits against classes `[N]` or probabilities `[N, K]`.

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
        if not 0 <= self.weight <= 1:
            raise UserError(f"weight={self.weight!r}: must be in [0, 1]")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of `[T, N, K]` logits.

        Raises:
            ValueError: logits without a time axis.
        """
        logits, target = check_target(logits, target)
        if logits.ndim != 3:
            raise UserError(
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
        main: loss of the main output, and of the sum of logits: of outputs and targets, their mean over the batch. Any
            that takes both, such as `torch.nn.MSELoss()`.
        branch: loss of every branch, `[N, K]`; if it is not given a cross entropy with the smoothing of `main`, or
            `main` where that is none. A function of your own is then shown what it is shown of the main output:
            `[T, N, K]`, where that has steps, with the branch at each of them.
        combine: `"logits"` (the paper's), `"additive"` or `"convex"`, see the formulas of this module.
        branch_weights: `"sum"` or `"mean"`.

    Raises:
        ValueError: an unknown name, or a loss that cannot be called, such as its class; called with branches, one of
            probabilities, such as `torch.nn.NLLLoss()`.
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
        """The loss of all outputs by what a user gives: itself, the loss of one output such as `TET()`, or nothing.

        Raises:
            ValueError: what cannot be called.
        """
        return loss if isinstance(loss, ShortcutLoss) else cls() if loss is None else cls(main=loss)

    def __call__(
        self, outputs: Outputs | Tensor, target: Tensor, *, coefficient: float | Tensor, by_branch: bool = True
    ) -> LossTerms:
        """Combine the outputs; without branches the total is the main loss, whatever the coefficient.

        Args:
            outputs: of the network; plain logits are taken as a network without branches.
            target: classes `[N]`, or probabilities `[N, K]`.
            coefficient: the balance coefficient, 0 or more; for `"convex"` at most 1.
            by_branch: whether each branch's own loss is wanted where the total is not made of them (`"logits"`).

        Raises:
            ValueError: a number outside its range for `coefficient`; one in a tensor is not looked at.
        """
        coefficient = self._checked(coefficient)
        if not isinstance(outputs, Outputs):
            warn_of_logits_alone(outputs, coefficient)
            outputs = Outputs(outputs, {})
        if not outputs.branches:
            warn_of_eval(outputs.branches, outputs.logits, coefficient)
            main = apply_loss(self.main, outputs.logits, target)
            return LossTerms(main, main, {})
        if self.combine == "logits" or self.branch is None:  # heads for a loss of their own are the user's too
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
        r"""What is classified in training: $O + c \sum_k w_k O_k$ where logits are combined, $O$ where losses are.

        Branches have no steps, so each step of `[T, N, K]` main logits gets the same sum of theirs; the mean over time
        is then the sum of the means. Added up in the precision of the main output, float32 at least.
        """
        if isinstance(outputs, Tensor) or not outputs.branches or self.combine != "logits":
            return outputs if isinstance(outputs, Tensor) else outputs.logits
        num_classes = outputs.logits.shape[-1]
        for name, branch in outputs.branches.items():
            if branch.shape[-1] != num_classes:
                raise UserError(
                    f"the branch at {name} has {branch.shape[-1]} outputs, and the network {num_classes}: to be added, "
                    "its head must give as many"
                )
        branches = torch.stack(list(outputs.branches.values()))
        dtype = torch.promote_types(outputs.logits.dtype, torch.float32)
        added = branches.sum(0, dtype=dtype) if self.branch_weights == "sum" else branches.mean(0, dtype=dtype)
        return outputs.logits + coefficient * added

    def _by_branch(self, outputs: Outputs, target: Tensor) -> dict[str, Tensor]:
        loss = self.branch or self.main
        if self.branch is None and isinstance(self.main, CrossEntropy):  # of branches, which have no steps
            loss = CrossEntropy(label_smoothing=self.main.label_smoothing)
        # A function of someone else may take the first axis for time. Those that average over it need not be shown any.
        averages = type(loss) is CrossEntropy or isinstance(loss, nn.modules.loss._Loss)
        is_alike = kind_of(loss) == kind_of(self.main)
        steps = outputs.logits.shape[:-2] if is_alike and not averages else ()
        return {name: apply_loss(loss, o.expand(*steps, *o.shape), target) for name, o in outputs.branches.items()}

    def _checked(self, coefficient: float | Tensor) -> float | Tensor:
        if callable(coefficient) and not isinstance(coefficient, Tensor):
            raise UserError(f"coefficient={coefficient!r}: is a function; call it, schedule(step / total_steps)")
        if not isinstance(coefficient, Tensor | Real):
            raise UserError(f"coefficient={coefficient!r}: must be a number")
        largest = 1.0 if self.combine == "convex" else math.inf
        if not isinstance(coefficient, Tensor) and not (0 <= coefficient <= largest and coefficient < math.inf):
            allowed = "between 0 and 1" if self.combine == "convex" else "0 or a positive number"
            raise UserError(f"coefficient={coefficient!r}: must be {allowed} for combine={self.combine!r}")
        return coefficient if isinstance(coefficient, Tensor) else float(coefficient)  # NumPy's multiply as arrays


def shortcut_loss(
    outputs: Outputs | Tensor,
    target: Tensor,
    *,
    coefficient: float | Tensor,
    combine: Combine = "logits",
    branch_weights: BranchWeights = "sum",
    label_smoothing: float = 0.0,
) -> LossTerms:
    """Cross entropy of the main output and the branches, combined; `ShortcutLoss` takes other losses.

    Args:
        outputs: of a network that `attach` made.
        target: classes `[N]`, or probabilities `[N, K]`.
        coefficient: the balance coefficient $c$: 1 for equation 7 of the paper, from 0.25 to 0 for equation 10.
        combine: `"logits"`, one cross entropy of the sum of all logits (the paper's); `"additive"` or `"convex"`, a sum
            of one cross entropy for each output (ours).
        branch_weights: `"sum"` or `"mean"` over the branches.
        label_smoothing: in [0, 1).

    Raises:
        ValueError: an unknown name, or a number outside its range.
    """
    entropy = CrossEntropy(label_smoothing=label_smoothing)
    loss = ShortcutLoss(main=entropy, branch=entropy, combine=combine, branch_weights=branch_weights)
    return loss(outputs, target, coefficient=coefficient)


def classes_of(target: Tensor, *, loss: object) -> Tensor | None:
    """Classes `[N]` of a target, so that hits can be counted: itself, or the most probable of probabilities `[N, K]`.

    Args:
        target: of a batch.
        loss: of the main output; what is no cross entropy takes numbers `[N, K]` for something else.

    Returns:
        None for a regression and for several labels at once, which have no accuracy.

    Raises:
        ValueError: classes in more than one dimension, as those of pixels.
    """
    if isinstance(loss, OF_NUMBERS):
        return None
    if target.is_floating_point():
        is_probable = target.ndim == 2 and isinstance(loss, CrossEntropy | nn.CrossEntropyLoss)
        return target.argmax(1) if is_probable else None
    check_classes(target)
    return target


def apply_loss(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """The loss of an output; one of `torch.nn` gets the mean over time, and one of numbers whole ones in float32.

    Raises:
        ValueError: outputs and numbers of different shapes, which PyTorch would stretch to each other; what
            `CrossEntropy` refuses; a loss that is no mean.
    """
    if not isinstance(loss, nn.modules.loss._Loss):
        return loss(logits, target)
    if loss.reduction != "mean" and not (isinstance(loss, nn.KLDivLoss) and loss.reduction == "batchmean"):
        raise UserError(
            f"{type(loss).__name__}(reduction={loss.reduction!r}): batches are weighed by means, use 'mean'"
        )
    check_devices(logits, target)
    if isinstance(loss, nn.CrossEntropyLoss):
        logits, target = check_target(logits, target, in_range=False)  # it may have an ignore_index
    logits = mean_over_time(logits)
    if (target.is_floating_point() or isinstance(loss, OF_NUMBERS)) and logits.shape != target.shape:
        raise UserError(
            f"{type(loss).__name__}: outputs of shape {list(logits.shape)} and targets of shape {list(target.shape)}, "
            "which would be stretched to each other: give targets the shape of the outputs"
        )
    if isinstance(loss, OF_NUMBERS) and not target.is_floating_point():
        # Some fail on whole numbers; that of several labels takes these alone, which name the labels of a sample.
        target = target.long() if isinstance(loss, nn.MultiLabelMarginLoss) else target.float()
    return loss(logits, target)


def mean_over_time(logits: Tensor) -> Tensor:
    """`[T, N, K]` logits to `[N, K]`; `[N, K]` ones pass."""
    return logits.mean(0) if logits.ndim == 3 else logits
