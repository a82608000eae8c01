"""An exponential moving average of a network's weights and statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shortback.copies import deep_copy
from shortback.inspection.reset import without_states


class WeightAverage:
    """PyTorch's `AveragedModel`, extended to networks whose neurons keep their states in buffers.

    Integer buffers, such as counts, are copied instead of averaged.

    Args:
        net: the network to average; it is copied.
        decay: decay of the average per step.

    Attributes:
        module: the network with averaged weights.
    """

    def __init__(self, net: nn.Module, *, decay: float) -> None:
        self._averaged = AveragedModel(deep_copy(net), multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.module: nn.Module = self._averaged.module

    def update(self, net: nn.Module) -> None:
        """Add the weights after an optimizer step to the average."""
        for mine, theirs in zip(self.module.buffers(), net.buffers(), strict=True):
            if mine.shape != theirs.shape:  # a neuron state, sized by the batch and reset before use
                mine.data = torch.zeros_like(theirs)
        self._averaged.update_parameters(net)
        for mine, theirs in zip(self.module.buffers(), net.buffers(), strict=True):
            if not mine.is_floating_point():  # an average truncated to integers would lag behind for ever
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        return without_states(self._averaged)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._averaged.load_state_dict(state, strict=False)
