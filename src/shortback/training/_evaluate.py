"""Accuracy and loss on a whole split."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.choices import Layout
from shortback.errors import UserError
from shortback.inspection.backends import with_backend
from shortback.inspection.classes import StepsOrClassesError
from shortback.inspection.detect import find_layouts
from shortback.inspection.layout import logits_of, sample_axis, stacked
from shortback.inspection.mistakes import explaining
from shortback.inspection.reset import reset_states
from shortback.inspection.trunk import Branched
from shortback.inspection.untouched import modes_kept
from shortback.losses import CrossEntropy, Loss, ShortcutLoss, apply_loss, mean_over_time
from shortback.outputs import Outputs
from shortback.spiking import SpikingNetwork
from shortback.training.state import none_if_nan
from shortback.training.sync_norm import local_norms
from shortback.training.weighing import hits_of, num_counted, weight_of

log = logging.getLogger("shortback")


class Evaluation(NamedTuple):
    """The result of `evaluate`; images whose label the loss ignores are not counted.

    Attributes:
        accuracy: in [0, 1]; None for a regression.
        loss: the mean loss.
        num_images: number of images counted.
        is_constant: whether several images all got the same output, as when neurons no longer fire in `eval()`.
    """

    accuracy: float | None
    loss: float
    num_images: int
    is_constant: bool = False


def outputs_of(output: Any, layout: Layout = "time_first") -> Outputs | Tensor:
    """Convert what a network returned to logits, `[N, K]` or `[T, N, K]`; `Outputs` pass through unchanged.

    Args:
        output: `Outputs`, a tensor, a tuple whose first element is used, or a list over steps.
        layout: layout of a tensor with three axes, see `layout_of_output`.
    """
    return output if isinstance(output, Outputs) else logits_of(output, layout, None)


def layout_of_output(net: nn.Module, x: Tensor, *, num_samples: int) -> Layout:
    """Find which axes of a three-axis output, of a network without branches, hold time and samples.

    The layout is found by running the network. If that is inconclusive, steps are assumed to come first.

    Raises:
        ValueError: samples come first, and it cannot be determined which of the other axes holds the steps.
    """
    few = x.narrow(axis, 0, min(2, num_samples)) if (axis := sample_axis(net, x, num_samples)) is not None else x
    # Each process may need a different number of forward passes, so no norm may wait for the other processes.
    with local_norms(net), with_backend("reference", net):
        try:
            return find_layouts(net, few, {}).output
        except StepsOrClassesError as error:
            raise UserError(
                f"{type(net).__name__} returns [N, T, K] or [N, K, T], and running it does not tell which: "
                "have it return [T, N, K], or [N, K] averaged over time"
            ) from error
        except UserError:
            return "time_first"


def has_unknown_steps(net: nn.Module, returned: Any) -> bool:
    """Whether the output has three axes and the network is not one of ours, whose time axis is known."""
    return not isinstance(net, Branched | SpikingNetwork) and stacked(returned).ndim == 3


def _alone_on(device: torch.device) -> Fabric:
    return Fabric(accelerator=device.type, devices=1 if device.index is None else [device.index])


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss | ShortcutLoss | None = None,
    fabric: Fabric | None = None,
) -> Evaluation:
    """Evaluate a network over all processes; neuron states of other libraries are reset before each batch.

    Args:
        model: what `attach` returned, or a network that returns `[N, K]`, or `[N, K]` per step on any time axis. It
            runs in `eval()`; every module's own mode is restored afterwards.
        batches: this process's part of the split, with classes `[N]`, or probabilities `[N, K]`, whose largest entry is
            the class.
        loss: a function of outputs and targets that returns the mean over the batch, as in training, or a
            `ShortcutLoss`, whose `main` it is. Defaults to plain cross entropy, which also replaces `CrossEntropy` with
            label smoothing and `TET`.
        fabric: provides device, precision and the sum over processes; if None, the model runs on its own device in
            its own precision, in this process alone.

    Raises:
        ValueError: there are no batches; targets that are neither classes nor probabilities; an output whose time axis
            cannot be determined; or a loss that does not average over the batch.
    """
    fabric = fabric or _alone_on(next((p.device for p in model.parameters()), torch.device("cpu")))
    loss = loss.main if isinstance(loss, ShortcutLoss) else loss
    if loss is None or isinstance(loss, CrossEntropy):
        loss = CrossEntropy()
    if isinstance(loss, nn.Module):
        loss.to(fabric.device)  # class weights
    sums, first, layout = torch.zeros(7, dtype=torch.float64), None, cast(Layout, "time_first")
    with modes_kept(model):
        model.eval()
        for x, y in batches:
            x, y = fabric.to_device((x, y))
            with fabric.autocast(), explaining(model, x, what="batch"):
                reset_states(model)
                returned = model(x)
                if first is None and has_unknown_steps(model, returned):
                    layout = layout_of_output(model, x, num_samples=len(y))
                outputs = outputs_of(returned, layout)
                by_step = outputs if isinstance(outputs, Tensor) else outputs.logits
            by_step = by_step.to(torch.promote_types(by_step.dtype, torch.float32))
            logits = mean_over_time(by_step)
            first = logits[:1] if first is None else first
            judged = logits if isinstance(loss, CrossEntropy) else by_step  # as in training
            correct = hits_of(logits, y, loss=loss)
            count, weight = num_counted(y, loss=loss), weight_of(y, loss=loss)
            total = apply_loss(loss, judged, y) * weight if weight else 0.0  # the mean over no labels is NaN
            values = correct, total, count, weight, (logits != first).any(), len(y), not x.isfinite().all()
            sums += torch.tensor([float(value) for value in values], dtype=torch.float64)
    sums = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(sums, Tensor)
    correct, total, count, weight, differ, seen, wrong = sums.tolist()
    if not seen:
        raise UserError("evaluate() got no batches: a generator or an iterator gives its batches only once")
    if wrong and fabric.is_global_zero:  # neurons may turn a NaN into 0
        log.warning("%d evaluated batches hold inputs that are not finite: check the data and its normalisation", wrong)
    is_constant = count > fabric.world_size and not differ  # so at least one process has seen two images
    return Evaluation(none_if_nan(correct / (count or math.nan)), total / (weight or math.nan), int(count), is_constant)
