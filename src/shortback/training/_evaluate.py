"""Accuracy and loss on a whole split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.backends import running_by
from shortback.inspection.classes import StepsOrClassesError
from shortback.inspection.detect import find_layouts
from shortback.inspection.layout import sample_axis, stacked
from shortback.inspection.mistakes import explaining
from shortback.inspection.reset import reset_states
from shortback.inspection.trunk import Branched
from shortback.inspection.untouched import modes_kept
from shortback.losses import CrossEntropy, Loss, apply_loss, mean_over_time
from shortback.outputs import Outputs
from shortback.spiking import SpikingNetwork
from shortback.training.state import number_or_none
from shortback.training.sync_norm import local_norms
from shortback.training.weighing import hits_of, num_counted, weight_of


class Evaluation(NamedTuple):
    """`accuracy` in [0, 1] and the mean `loss`, over `num_images`; a regression has no accuracy.

    A label that the loss ignores is none of these.

    `is_constant`: whether all of several images got the same output, as where neurons fire no more in `eval()`.
    """

    accuracy: float | None
    loss: float
    num_images: int
    is_constant: bool = False


def outputs_of(output: Any) -> Outputs | Tensor:
    """What a network returned: `Outputs` as they are, else its logits, the first of a tuple or a list over steps."""
    return output if isinstance(output, Outputs) else stacked(output)


def check_steps_first(net: nn.Module, x: Tensor, *, num_samples: int) -> None:
    """See that a network without branches returns `[T, N, K]` where it returns three axes.

    Raises:
        ValueError: it returns `[N, T, K]` or `[N, K, T]`.
    """
    few = x.narrow(axis, 0, min(2, num_samples)) if (axis := sample_axis(net, x, num_samples)) is not None else x
    # Processes stop looking after different runs: none may wait for another in a norm.
    with local_norms(net), running_by("reference", net):
        try:
            output = find_layouts(net, few, {}).output
        except StepsOrClassesError:
            output = None
        except UserError:
            return
    returned = {"batch_first": "[N, T, K]", "time_last": "[N, K, T]", None: "[N, T, K] or [N, K, T]"}
    if output in returned:
        raise UserError(
            f"{type(net).__name__} returns {returned[output]}: what has no "
            "branches must return [T, N, K] here, or [N, K]: transpose it, or average it over time"
        )


def _alone_on(device: torch.device) -> Fabric:
    return Fabric(accelerator=device.type, devices=1 if device.index is None else [device.index])


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss | None = None,
    fabric: Fabric | None = None,
) -> Evaluation:
    """Evaluate a network, summing over all processes; states of other libraries' neurons are reset before each batch.

    Args:
        model: what `attach` returned, or a network that returns `[N, K]` or `[T, N, K]`; run in `eval()`, each of its
            modules put back into its own mode.
        batches: this process's part of the split, with classes `[N]`, or probabilities `[N, K]`, of which the largest
            is the class.
        loss: of outputs and targets, a mean over the batch, as in training. Cross entropy if not given; of one with
            smoothing or steps what is left without.
        fabric: for device, precision and the sum over processes; without one the model runs where it is, as it is.
    """
    fabric = fabric or _alone_on(next(model.parameters()).device)
    if loss is None or isinstance(loss, CrossEntropy):
        loss = CrossEntropy()
    if isinstance(loss, nn.Module):
        loss.to(fabric.device)  # its weights
    sums, first = torch.zeros(5, dtype=torch.float64), None
    with modes_kept(model):
        model.eval()
        for x, y in batches:
            x, y = fabric.to_device((x, y))
            with fabric.autocast(), explaining(model, x, what="batch"):
                reset_states(model)
                outputs = outputs_of(model(x))
                by_step = outputs if isinstance(outputs, Tensor) else outputs.logits
                if first is None and by_step.ndim == 3 and not isinstance(model, Branched | SpikingNetwork):
                    check_steps_first(model, x, num_samples=len(y))
            logits = mean_over_time(by_step).float()
            first = logits[:1] if first is None else first
            judged = logits if isinstance(loss, CrossEntropy) else by_step.float()  # as in training
            correct = hits_of(logits, y, loss=loss)
            count, weight = num_counted(y, loss=loss), weight_of(y, loss=loss)
            total = apply_loss(loss, judged, y) * weight if weight else 0.0  # the mean over no label is no number
            values = correct, total, count, weight, (logits != first).any()
            sums += torch.tensor([float(value) for value in values], dtype=torch.float64)
    sums = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(sums, Tensor)
    correct, total, count, weight, differ = sums.tolist()
    is_constant = count > fabric.world_size and not differ  # so that one process at least has seen two
    return Evaluation(number_or_none(correct / (count or 1)), total / (weight or 1), int(count), is_constant)
