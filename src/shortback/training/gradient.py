"""Process the gradient between backward and update: unscale it (fp16), take its norm, clip it."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.training.outcome import NonFiniteError

MAX_SKIPPED = 50  # consecutive steps: the scale fell from 65536 to below 1e-10 by then, so the loss is at fault


class Gradient:
    """The gradient of the parameters that an optimizer updates.

    In fp16 the loss is scaled up so that small gradients do not become 0; a step whose gradient overflows as a result
    is skipped, and the scale is halved (`torch.amp.GradScaler`, in Fabric).

    Args:
        net: the network in training.
        optimizer: the optimizer as it was before `fabric.setup_optimizers`.
        fabric: provides the precision and its scale.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, fabric: Fabric) -> None:
        self.net, self.optimizer = net, optimizer
        self.precision = fabric.strategy.precision
        self.is_scaled = getattr(self.precision, "scaler", None) is not None
        self._skipped = torch.zeros((), device=fabric.device)

    def norm(self, *, clip: float | None) -> Tensor:
        """Unscale and clip the gradient; returns its norm before clipping, 0 if the step will be skipped.

        A gradient that is not finite is not clipped. Call this once per step, after backward.
        """
        if self.is_scaled:
            self.precision.unscale_gradients(self.optimizer)
        stepped = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in stepped])
        if clip is not None:  # a norm that is not finite would spoil the whole gradient, and hide where that began
            finite = norm.nan_to_num(nan=0.0, posinf=0.0)
            torch.nn.utils.clip_grads_with_norm_(stepped, clip, finite)
        if not self.is_scaled:
            return norm
        overflowed = ~norm.isfinite()
        self._skipped = torch.where(overflowed, self._skipped + 1, 0)
        return torch.where(overflowed, 0.0, norm)

    def check(self, step: int) -> None:
        """Check that not all recent steps were skipped.

        Raises:
            NonFiniteError: the last `MAX_SKIPPED` steps, or more, were all skipped.
        """
        if self.is_scaled and self._skipped.item() >= MAX_SKIPPED:
            raise NonFiniteError(
                f"step {step}: the gradient overflowed in fp16 in {int(self._skipped.item())} consecutive steps, at "
                "ever smaller scales. Try precision fp32 (-s train.precision=fp32), a lower learning rate, or "
                "a clip_norm of 1 or less"
            )

    def state_dict(self) -> dict[str, Any]:
        """The scale, and the number of consecutive skipped steps."""
        return {"precision": self.precision.state_dict(), "skipped": self._skipped.item()}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.is_scaled:
            self.precision.load_state_dict(content["precision"])
        self._skipped.fill_(content["skipped"])
