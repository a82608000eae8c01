"""Run a network for a look at it, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(model: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Put back the modes, the buffers and the random state when the block ends, however it ends.

    Args:
        model: what may be changed in the block.
        inputs: tensors whose devices' generators are kept too.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {t.device for t in (*inputs, *model.parameters()) if t.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
