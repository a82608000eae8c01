"""The gradient between backward and update: unscaled where it is in half precision, its norm, clipped."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.training.outcome import NonFiniteError

MAX_SKIPPED = 50  # steps one after another: from 65536 the scale is below 1e-10 then, and the loss is at fault


class Gradient:
    """The gradient of a training.

    In fp16 the loss is scaled up, so that small gradients are not 0, and a step whose gradient overflows by that is
    left out while the scale is halved (`torch.amp.GradScaler`, in Fabric).

    Args:
        net: in training.
        optimizer: as Fabric was given it.
        fabric: the precision and its scale.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, fabric: Fabric) -> None:
        self.net, self.optimizer = net, optimizer
        self.precision = fabric.strategy.precision
        self.is_scaled = getattr(self.precision, "scaler", None) is not None
        self._skipped = torch.zeros((), device=fabric.device)

    def norm(self, *, clip: float | None) -> Tensor:
        """The norm of the whole gradient, before it is clipped to `clip`; 0 of one that will be left out.

        Call it once a step, after backward.
        """
        if self.is_scaled:
            self.precision.unscale_gradients(self.optimizer)
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.net.parameters(), clip, norm)
        if not self.is_scaled:
            return norm
        overflowed = ~norm.isfinite()
        self._skipped = torch.where(overflowed, self._skipped + 1, 0)
        return torch.where(overflowed, 0.0, norm)

    def check(self, step: int) -> None:
        """See that steps are not left out for ever.

        Raises:
            NonFiniteError: too many were, one after another.
        """
        if self.is_scaled and self._skipped.item() >= MAX_SKIPPED:
            raise NonFiniteError(
                f"step {step}: the gradient overflowed in fp16 in {int(self._skipped.item())} steps one after another, "
                "at ever smaller scales. Try precision fp32 (-s train.precision=fp32), a lower learning rate, or "
                "clip_norm=1"
            )

    def state_dict(self) -> dict[str, Any]:
        """The scale."""
        return {"precision": self.precision.state_dict(), "skipped": self._skipped.item()}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        if self.is_scaled:
            self.precision.load_state_dict(content["precision"])
        self._skipped.fill_(content["skipped"])
