"""What counts in a batch: means of batches, and of their parts, are weighed by what the loss is a mean over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.losses import ShortcutLoss, classes_of
from shortback.outputs import Outputs

_OF_LABELS = nn.CrossEntropyLoss | nn.NLLLoss


def counted(target: Tensor, *, loss: object) -> Tensor | None:
    """Which samples of a target count, `[N]`; None for all. A loss of `torch.nn` ignores those of one label."""
    if not isinstance(loss, _OF_LABELS) or target.is_floating_point():
        return None
    return target.long() != loss.ignore_index


def num_counted(target: Tensor, *, loss: object) -> Tensor | int:
    """How many labels of a target count."""
    counts = counted(target, loss=loss)
    return len(target) if counts is None else counts.sum()


def weight_of(target: Tensor, *, loss: object) -> Tensor | int:
    """What the mean over a batch divides by.

    These are the samples, but for a loss of `torch.nn` with labels: those that count, or the sum of their weights.
    """
    counts = counted(target, loss=loss)
    if counts is None or not isinstance(loss, _OF_LABELS):
        return len(target)
    if loss.weight is None:
        return counts.sum()
    return (loss.weight[target.long().where(counts, 0)] * counts).sum()


def sum_of(mean: Tensor, weight: Tensor | int) -> Tensor:
    """What a mean is over its weight; 0 where that is 0, and the mean over nothing no number."""
    total = mean * weight
    return total.where(weight != 0, 0) if isinstance(weight, Tensor) else total


def no_gradient_of_nothing(outputs: Outputs | Tensor, weight: Tensor | int) -> None:
    """Let the gradient of outputs be 0 where no label counts: the mean over none is no number, and so is its gradient.

    Args:
        outputs: of a part of a batch.
        weight: of it.
    """
    if not isinstance(weight, Tensor):
        return
    counts = weight != 0
    for each in (outputs,) if isinstance(outputs, Tensor) else (outputs.logits, *outputs.branches.values()):
        if each.requires_grad:
            each.register_hook(lambda gradient: gradient.where(counts, 0))


def hits_of(logits: Tensor, target: Tensor, *, loss: object) -> Tensor:
    """How many `[N, K]` outputs are largest at their class, of those whose label counts; NaN in a regression."""
    classes, counts = classes_of(target, loss=loss), counted(target, loss=loss)
    if classes is None:
        return torch.full((), torch.nan, dtype=torch.float64, device=logits.device)
    hits = logits.argmax(1) == classes
    return (hits if counts is None else hits & counts).sum()


def check_parts(loss: ShortcutLoss, number: int) -> None:
    """See that the loss of a batch is that of its parts, weighed by what the main loss is a mean over.

    Raises:
        ValueError: a sum of losses that weigh classes differently.
    """
    losses = loss.main, loss.branch or loss.main
    main, branch = (each.weight if isinstance(each, _OF_LABELS) else None for each in losses)
    alike = main is branch or (main is not None and branch is not None and torch.equal(main, branch))
    if number > 1 and loss.combine != "logits" and not alike:
        raise UserError(
            f"accumulate={number}: main and branch weigh classes differently, and parts of a batch cannot be weighed "
            "for both: give both losses the same weight, or take accumulate=1"
        )
