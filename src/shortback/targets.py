"""Checks of training targets: classes `[N]`, probabilities `[N, K]`, or numbers for losses that compare numbers."""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortback.errors import UserError

# Losses that take probabilities or their logarithms, and what to use instead for unbounded outputs.
_PROBABILITY_LOSSES: tuple[tuple[type[nn.Module], Any, str], ...] = (
    (
        nn.NLLLoss,
        F.nll_loss,
        "use torch.nn.CrossEntropyLoss(): log_softmax leaves log-probabilities unchanged, so the network may stay",
    ),
    (
        nn.KLDivLoss,
        F.kl_div,
        "use torch.nn.CrossEntropyLoss(), which takes probabilities [N, K] as targets and has the gradient of "
        "'batchmean': log_softmax leaves log-probabilities unchanged, so the network may stay",
    ),
    (nn.BCELoss, F.binary_cross_entropy, "use torch.nn.BCEWithLogitsLoss(), and a network without the sigmoid"),
)
# Losses for which even integer targets are not classes.
NUMERIC_LOSSES = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss),
    *(nn.BCEWithLogitsLoss, nn.BCELoss, nn.KLDivLoss),
    *(nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss, nn.MultiLabelMarginLoss),
)

_PIXELS = "outputs and classes for every pixel (segmentation) are not supported"


def loss_identity(loss: object) -> object:
    """Return what identifies a loss: its function, unwrapped from any `functools.partial`, or its class."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return loss if inspect.isroutine(loss) else type(loss)


class LabelSettings(NamedTuple):
    """What a loss of PyTorch's with labels ignores, and how it weights classes."""

    ignore_index: int
    weight: Tensor | None


def label_settings(loss: object) -> LabelSettings | None:
    """What `torch.nn.CrossEntropyLoss` and `NLLLoss`, or their functions, do with labels; None for other losses."""
    given: dict[str, Any] = {}
    while isinstance(loss, functools.partial):
        given, loss = {**loss.keywords, **given}, loss.func
    if loss in (F.cross_entropy, F.nll_loss):
        return LabelSettings(given.get("ignore_index", -100), given.get("weight"))
    return LabelSettings(loss.ignore_index, loss.weight) if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) else None


def counts_mask(target: Tensor, *, loss: object) -> Tensor | None:
    """A mask `[N]` of the samples whose label `loss` does not ignore (`ignore_index`); None if all count."""
    labels = label_settings(loss)
    return None if labels is None or target.is_floating_point() else target.long() != labels.ignore_index


def check_takes_logits(loss: object) -> None:
    """Check that a loss takes unbounded outputs, such as branches and sums with them.

    Raises:
        ValueError: the loss takes probabilities or their logarithms; with other outputs it would silently not learn.
    """
    kind = loss_identity(loss)
    for module, function, instead in _PROBABILITY_LOSSES:
        if kind is function or kind is module:  # a derived class may compute the probabilities itself
            name = module.__name__ if kind is module else function.__name__
            raise UserError(
                f"{name} takes probabilities or their logarithms, but branches, and sums with them, are neither: "
                f"{instead}"
            )


def check_target(logits: object, target: object, *, in_range: bool = True) -> tuple[Tensor, Tensor]:
    """Check outputs and target of a cross entropy, and return them with classes converted to int64.

    Args:
        logits: `[N, K]` or `[T, N, K]`.
        target: classes `[N]` of any integer dtype, or probabilities `[N, K]`.
        in_range: whether every class must be an output; False for a loss with an `ignore_index`.

    Raises:
        ValueError: anything else; the message says what to do. The range of classes is checked on the CPU only, since
            reading values would synchronise a GPU, and not under `torch.compile`, where it would break the graph.
    """
    if not isinstance(logits, Tensor):
        hint = "pass its .logits, or use shortback.ShortcutLoss" if hasattr(logits, "branches") else "pass logits"
        raise UserError(f"the loss got {type(logits).__name__} as outputs: {hint}")
    if not isinstance(target, Tensor):
        raise UserError(f"the loss got {type(target).__name__} as target: make it a tensor, torch.as_tensor(target)")
    check_devices(logits, target)
    if logits.ndim not in (2, 3):
        hint = f"; {_PIXELS}" if logits.ndim > 3 else ""
        raise UserError(f"outputs of shape {list(logits.shape)}: must be [N, K], or [T, N, K] by step{hint}")
    num_samples, num_classes = logits.shape[-2:]
    if num_classes == 1:
        raise UserError(
            "the cross entropy of a single output is 0 whatever its value: give the network two outputs, or use "
            "a loss for one output, such as torch.nn.BCEWithLogitsLoss()"
        )
    if target.is_floating_point():
        _check_probabilities(target, num_samples, num_classes)
        return logits, target
    check_classes(target, num_classes=num_classes)
    if len(target) != num_samples:
        raise UserError(f"{len(target)} labels for {num_samples} samples")
    target = target.long()
    if in_range and target.device.type == "cpu" and not torch.compiler.is_compiling():
        check_range(target, num_classes)
    return logits, target


def check_devices(logits: Tensor, target: Tensor) -> None:
    """Check that outputs and targets are on the same device.

    Raises:
        ValueError: they are not.
    """
    if logits.device != target.device:
        raise UserError(
            f"the targets are on {target.device}, and the outputs on {logits.device}: pass y.to({str(logits.device)!r})"
        )


def check_classes(target: Tensor, *, num_classes: int | None = None) -> None:
    """Check that integer targets are one class per sample.

    Raises:
        ValueError: the shape is not `[N]`.
    """
    if target.ndim == 1:
        return
    hint = _PIXELS
    if target.ndim == 2 and target.shape[1] == 1:
        hint = "take target.squeeze(1)"
    elif target.ndim == 2 and target.shape[1] == num_classes and bool((target.sum(1) == 1).all()):
        hint = "for one-hot rows, take target.argmax(1), or target.float() as probabilities"
    raise UserError(f"integer targets of shape {list(target.shape)}: must be one class per sample, [N]; {hint}")


def check_range(target: Tensor, num_classes: int) -> None:
    """Check that classes are outputs of the network; -100, which PyTorch's cross entropy ignores, is not one.

    Raises:
        ValueError: a class is negative or too large.
    """
    if len(target) and not (target.min() >= 0 and target.max() < num_classes):
        raise UserError(
            f"labels from {target.min().item()} to {target.max().item()}: the network has {num_classes} classes, "
            f"so they must be from 0 to {num_classes - 1}"
        )


def _check_probabilities(target: Tensor, num_samples: int, num_classes: int) -> None:
    if target.shape == (num_samples, num_classes):
        return
    name = str(target.dtype).removeprefix("torch.")
    hint = "classes are whole numbers, target.long()" if target.ndim == 1 else f"probabilities are [N, {num_classes}]"
    outputs = [num_samples, num_classes]
    raise UserError(f"targets of shape {list(target.shape)} in {name} for outputs {outputs}: {hint}")
