"""Inputs to inspect a network with: the sample and a stronger input, with batch norm on its averages and on the batch.

An untrained network hardly fires: deep inside it, the averages of fresh batch norms let nothing through.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def probes(sample: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """Yield inputs, each with whether batch norm uses the statistics of the batch."""
    inputs = [sample]
    if sample.is_floating_point():
        inputs.append(4 * torch.rand_like(sample))
    for x in inputs:
        yield x, False
        yield x, True


def set_norms(model: nn.Module, *, training: bool) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(training)
