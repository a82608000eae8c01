"""Weigh the means of batches, and of their parts, by what the loss divides by: samples, labels or class weights."""

from __future__ import annotations

import torch
from torch import Tensor

from shortback.errors import UserError
from shortback.losses import ShortcutLoss, classes_of
from shortback.outputs import Outputs
from shortback.targets import counts_mask, label_settings


def num_counted(target: Tensor, *, loss: object) -> Tensor | int:
    """The number of samples whose label counts."""
    counts = counts_mask(target, loss=loss)
    return len(target) if counts is None else counts.sum()


def weight_of(target: Tensor, *, loss: object) -> Tensor | int:
    """The number that the mean over a batch divides by.

    This is the number of samples; for a loss of `torch.nn` with labels, it is the number of those that count, or the
    sum of their class weights.
    """
    counts, labels = counts_mask(target, loss=loss), label_settings(loss)
    if counts is None or labels is None:
        return len(target)
    if labels.weight is None:
        return counts.sum()
    return (labels.weight[target.long().where(counts, 0)] * counts).sum()


def share_of_batch(weight: Tensor | int, whole: Tensor | int) -> Tensor | float:
    """The weight of a part of a batch over that of the whole, in float64."""
    return weight.double() / whole if isinstance(weight, Tensor) else weight / whole


def sum_of(mean: Tensor, weight: Tensor | int) -> Tensor:
    """The sum behind a mean; 0 if the weight is 0, where the mean is NaN."""
    total = mean * weight
    return total.where(weight != 0, 0) if isinstance(weight, Tensor) else total


def zero_gradient_without_weight(outputs: Outputs | Tensor, weight: Tensor | int) -> None:
    """Make the gradient of the outputs 0 if no label counts: the mean over no labels is NaN, as is its gradient.

    Args:
        outputs: outputs for a part of a batch.
        weight: weight of this part, from `weight_of`.
    """
    if not isinstance(weight, Tensor):
        return
    counts = weight != 0
    for each in (outputs,) if isinstance(outputs, Tensor) else (outputs.logits, *outputs.branches.values()):
        if each.requires_grad:
            each.register_hook(lambda gradient: gradient.where(counts, 0))


def hits_of(logits: Tensor, target: Tensor, *, loss: object) -> Tensor:
    """The number of `[N, K]` outputs that are largest at their class, if their label counts; NaN in a regression."""
    classes, counts = classes_of(target, loss=loss), counts_mask(target, loss=loss)
    if classes is None:
        return torch.full((), torch.nan, dtype=torch.float64, device=logits.device)
    hits = logits.argmax(1) == classes
    return (hits if counts is None else hits & counts).sum()


def check_parts(loss: ShortcutLoss, number: int) -> None:
    """Check that the loss of a batch is the mean over its `number` parts, weighed by `weight_of` the main loss.

    Raises:
        ValueError: main and branch losses are added, and weigh classes differently.
    """
    losses = [label_settings(each) for each in (loss.main, loss.branch or loss.main)]
    main, branch = (None if each is None else each.weight for each in losses)
    ignored = {None if each is None else each.ignore_index for each in losses}
    alike = main is branch or (main is not None and branch is not None and torch.equal(main, branch))
    if number > 1 and loss.combine != "logits" and not (alike and len(ignored) == 1):
        raise UserError(
            f"accumulate={number}: main and branch weight classes differently, so parts of a batch cannot suit both: "
            "give both losses the same weight and ignore_index, or use accumulate=1"
        )
