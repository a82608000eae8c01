"""What counts in a batch: means of batches, and of their parts, are weighed by what the loss is a mean over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.losses import ShortcutLoss, classes_of

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
