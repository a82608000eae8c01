"""Accuracy and loss on a whole split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import modes_kept
from shortback.losses import Outputs, classes_of, mean_over_time


class Evaluation(NamedTuple):
    """`accuracy` in [0, 1], `loss` the mean cross entropy, over `num_images`."""

    accuracy: float
    loss: float
    num_images: int


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, fabric: Fabric | None = None) -> Evaluation:
    """Evaluate a network, summing over all processes; states of other libraries' neurons are reset before each batch.

    Args:
        model: what `attach` returned, or a network that returns `[N, K]` or `[T, N, K]`; run in `eval()`, each of its
            modules put back into its own mode.
        batches: this process's part of the split, with classes `[N]`, or probabilities `[N, K]`, of which the largest
            is the class.
        fabric: for device, precision and the sum over processes; without one the model runs where it is, as it is.
    """
    fabric = fabric or Fabric(accelerator=next(model.parameters()).device.type, devices=1)
    sums = torch.zeros(3, dtype=torch.float64)
    with modes_kept(model):
        model.eval()
        for x, y in batches:
            x, y = fabric.to_device((x, y))
            with fabric.autocast():
                reset_states(model)
                outputs: Outputs | Tensor = model(x)
                logits = mean_over_time(outputs if isinstance(outputs, Tensor) else outputs.logits).float()
            loss = F.cross_entropy(logits, y, reduction="sum")
            correct = (logits.argmax(1) == classes_of(y)).sum()
            sums += torch.stack([correct, loss, torch.tensor(len(y))]).double().cpu()
    sums = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(sums, Tensor)
    correct, loss, count = sums.tolist()
    return Evaluation(correct / max(count, 1), loss / max(count, 1), int(count))
