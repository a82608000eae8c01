r"""Norms of spiking networks: over time and batch together, scaled for the threshold or step by step.

With $\hat x$ normalised over time, batch and space, and $\gamma$, $\beta$ learned:

- batch norm: $y = \gamma \hat x + \beta$, $\gamma$ starts at 1;
- tdBN (Zheng et al., AAAI 2021): the same, but $\gamma$ starts at $\alpha V_{th}$, with $\alpha = 1$, or $1/\sqrt 2$
  where two currents (not spikes) are added, so that currents start in proportion to the threshold;
- TEBN (Duan et al., NeurIPS 2022): $y[t] = p[t]\,(\gamma \hat x[t] + \beta)$, with $p$ learned and starting at 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.neurons import TimeModule


def threshold_dependent(channels: int, *, threshold: float, is_added: bool) -> nn.BatchNorm2d:
    """Make tdBN: PyTorch's batch norm, with its weight initialised in proportion to the threshold."""
    norm = nn.BatchNorm2d(channels)
    nn.init.constant_(norm.weight, threshold / math.sqrt(2) if is_added else threshold)
    return norm


class TemporalEffectiveNorm(TimeModule):
    """TEBN: batch norm with a learned factor for each step, `[T*N, C, H, W] -> [T*N, C, H, W]`.

    A static input `[N, C, H, W]` is expanded by this module, and each step multiplied by its factor. With fewer time
    steps than factors, the first factors are used.

    Raises:
        ValueError: in a call, if there are more time steps than factors.
    """

    def __init__(self, channels: int, *, num_steps: int) -> None:
        super().__init__(num_steps)
        self.norm = nn.BatchNorm2d(channels)
        self.by_step = nn.Parameter(torch.ones(num_steps))

    def forward(self, x: Tensor) -> Tensor:
        if self.num_steps > len(self.by_step):
            raise UserError(
                f"num_steps={self.num_steps}: norm='tebn' has learned factors for only {len(self.by_step)} time steps; "
                "norm='tdbn' works with any number"
            )
        steps, factors = self.unfold(self.norm(x)), self.by_step[: self.num_steps]
        return (steps * factors.to(steps.dtype).view(-1, *[1] * (steps.ndim - 1))).flatten(0, 1)
