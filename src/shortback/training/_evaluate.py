"""Accuracy and loss on a whole split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.inspection.reset import reset_states
from shortback.losses import Outputs, mean_over_time


class Evaluation(NamedTuple):
    """`accuracy` in [0, 1], `loss` the mean cross entropy, over `num_images`."""

    accuracy: float
    loss: float
    num_images: int


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, fabric: Fabric | None = None) -> Evaluation:
    """Evaluate a network, summing over all processes; states of other libraries' neurons are reset before each batch.

    Args:
        model: what `attach` returned, or a network that returns `[N, K]` or `[T, N, K]`; its mode is put back.
        batches: this process's part of the split.
        fabric: for device, precision and the sum over processes; without one the model runs where it is, as it is.
    """
    fabric = fabric or Fabric(accelerator=next(model.parameters()).device.type, devices=1)
    was_training = model.training
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    for x, y in batches:
        x, y = fabric.to_device((x, y))
        with fabric.autocast():
            reset_states(model)
            outputs: Outputs | Tensor = model(x)
            logits = mean_over_time(outputs if isinstance(outputs, Tensor) else outputs.logits).float()
        loss = F.cross_entropy(logits, y, reduction="sum")
        sums += torch.stack([(logits.argmax(1) == y).sum(), loss, torch.tensor(len(y))]).double().cpu()
    model.train(was_training)
    sums = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(sums, Tensor)
    correct, loss, count = sums.tolist()
    return Evaluation(correct / max(count, 1), loss / max(count, 1), int(count))
