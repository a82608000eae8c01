"""Stop at the first step whose loss or gradient is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shortback.health import first_nonfinite
from shortback.torch_private import norms_of
from shortback.training.outcome import NonFiniteError
from shortback.training.sync_norm import local_norms


@dataclass(frozen=True)
class _StepNumbers:
    """The numbers of a step, kept until they are checked.

    Attributes:
        step: number of the step, from 1.
        coefficient: the balance coefficient.
        values: `[P + 3]`, on their way to the host: the sum of the inputs, the mean loss, the norm of the whole
            gradient, and the gradient norm of each of the P parameters.
        names: names of these parameters.
        arrived: recorded once `values` are on the host; None on a CPU.
    """

    step: int
    coefficient: float
    values: Tensor
    names: list[str]
    arrived: torch.Event | None


class FiniteCheck:
    """Checks that the loss and the gradient of every step are finite.

    On a CPU this happens before the update. On a GPU, reading a number makes the host wait, so the numbers of a step
    are copied while the next step is computed, and checked before its update. By then one update has spoiled the
    weights, so what went wrong first is determined from the copied numbers alone.

    Args:
        net: the network in training.
        later: whether to check one step later, as on a GPU.
        clip_norm: the norm that gradients are clipped to, for advice; None if they are not.
    """

    def __init__(self, net: nn.Module, *, later: bool, clip_norm: float | None = None) -> None:
        self.net, self.later, self.clip_norm = net, later, clip_norm
        self._noted: _StepNumbers | None = None

    def look(self, x: Tensor, *, step: int, loss: Tensor, norm: Tensor, coefficient: float) -> None:
        """Check a step after its backward pass, or, with `later`, the step before it.

        Args:
            x: the batch.
            step: number of the step, from 1.
            loss: the mean loss, a scalar on the device.
            norm: norm of the whole gradient, from `Gradient.norm`; parameter norms only serve to name the culprit.
            coefficient: the balance coefficient, for the message.

        Raises:
            NonFiniteError: names the step, and the first value in it that is not finite.
        """
        total = x.sum(dtype=torch.promote_types(x.dtype, torch.float32))  # neurons may turn a NaN input into 0
        if self.later:
            self.finish()
            self._noted = self._note(step, total, loss, norm, coefficient)
        elif not (total + loss + norm).isfinite():
            if not x.isfinite().all():
                raise NonFiniteError(_of_the_data(step))
            with local_norms(self.net):  # other processes may not get here
                culprit = first_nonfinite(self.net, x) or "the loss itself"
            raise NonFiniteError(self._message(step, loss.item(), norm.item(), coefficient, culprit))

    def finish(self) -> None:
        """Check the step that is still unchecked; call it before a checkpoint is written, and at the end.

        Raises:
            NonFiniteError: see `look`.
        """
        noted, self._noted = self._noted, None
        if noted is None:
            return
        if noted.arrived is not None:
            noted.arrived.synchronize()
        total, loss, norm, *norms = noted.values.tolist()
        if not math.isfinite(total):
            raise NonFiniteError(_of_the_data(noted.step))
        if math.isfinite(loss) and math.isfinite(norm):  # the norm of a skipped step is 0
            return
        bad = [name for name, each in zip(noted.names, norms, strict=True) if not math.isfinite(each)]
        culprit = f"the gradient of {bad[-1]}" if bad and math.isfinite(loss) else "the loss itself"
        raise NonFiniteError(self._message(noted.step, loss, norm, noted.coefficient, culprit))

    def _note(self, step: int, total: Tensor, loss: Tensor, norm: Tensor, coefficient: float) -> _StepNumbers:
        with_gradient = {name: p.grad for name, p in self.net.named_parameters() if p.grad is not None}
        norms = norms_of(list(with_gradient.values()))
        values = torch.stack([value.float() for value in (total, loss, norm, *norms)]).to("cpu", non_blocking=True)
        arrived = torch.Event(loss.device) if loss.device.type != "cpu" else None
        if arrived is not None:
            arrived.record()
        return _StepNumbers(step, coefficient, values, list(with_gradient), arrived)

    def _message(self, step: int, loss: float, norm: float, coefficient: float, culprit: str) -> str:
        clip = 1 if self.clip_norm is None or self.clip_norm > 1 else self.clip_norm / 10
        return (
            f"step {step}: loss {loss:.4g}, gradient norm {norm:.4g}, coefficient {coefficient:.3g}; first not finite: "
            f"{culprit}. Try a lower learning rate, clip_norm={clip:g} (on the command line -s optimizer.clip_norm="
            f"{clip:g}), or a wider surrogate"
        )


def _of_the_data(step: int) -> str:
    return f"step {step}: the input batch holds values that are not finite: check the data and its normalisation"
