r"""Early exit in time: an image stops at the first step at which the network is confident, which saves the later steps.

The logits of the exit after step $t$ are the mean so far, $\bar O_t = \frac{1}{t} \sum_{k \le t} O[k]$; see
`shortback.export.exits`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shortback.errors import UserError
from shortback.export.exits import Batches, Exits, RowCount, check_threshold, confidence
from shortback.export.stream import stream
from shortback.spiking import SpikingNetwork


class EarlyExit:
    """Inference in which an image leaves the batch at the first step at which the network is confident.

    Args:
        model: its weights are shared, not copied.
        threshold: confidence in (0, 1]; with `shortback.export.exits.NEVER` every image takes all steps.
        temperatures: one for each step; 1 if not given.

    Raises:
        ValueError: `threshold` is not in (0, 1], the number of `temperatures` is not the number of steps, or as for
            `stream`.
    """

    def __init__(self, model: SpikingNetwork, *, threshold: float, temperatures: Sequence[float] | None = None) -> None:
        self.stream, self.threshold = stream(model), threshold
        self.stream.readout = "mean"  # whatever the model's own is
        self.temperatures = check_threshold(threshold, temperatures, exits=model.num_steps, what="steps")

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, K]` and the number of steps each image took, `[N]`, for `[N, C, H, W]` or `[T, N, C, H, W]`.

        Raises:
            ValueError: a sequence has another number of steps than the model.
        """
        _check_steps(x, len(self.temperatures))
        count = x.shape[x.ndim - 4]
        active, state = torch.arange(count, device=x.device), None
        steps = torch.zeros(count, dtype=torch.int64, device=x.device)
        logits: Tensor | None = None
        for step, temperature in enumerate(self.temperatures):
            frame = x if x.ndim == 4 else x[step]
            so_far, state = self.stream(frame if len(active) == count else frame[active], state)
            if logits is None:
                logits = torch.empty_like(so_far)
            done = confidence(so_far, temperature) >= self.threshold
            if step == len(self.temperatures) - 1:
                done[:] = True
            logits[active[done]], steps[active[done]] = so_far[done], step + 1
            active, left = active[~done], ~done
            if not len(active):
                break
            state = {key: value[left] if value.ndim else value for key, value in state.items()}
        assert logits is not None
        return logits, steps


@torch.no_grad()
def by_step(model: SpikingNetwork, batches: Batches) -> Exits:
    """Run a network step by step, and count the operations of every image at every step.

    Raises:
        ValueError: there is no batch, a sequence has another number of steps than the model, or as for `stream`.
    """
    streamed = stream(model)
    streamed.readout = "mean"
    count = RowCount(streamed)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    parts: list[Exits] = []
    for images, labels in batches:
        if not len(labels):
            continue
        _check_steps(images, model.num_steps)
        x, state, rows = images.to(device), None, []
        for step in range(model.num_steps):
            count.start(x.shape[x.ndim - 4])
            logits, state = streamed(x if x.ndim == 4 else x[step], state)
            rows.append((logits.float().cpu(), count.macs, count.acs))
        logits, macs, acs = map(torch.stack, zip(*rows, strict=True))
        parts.append(Exits(logits, labels.cpu(), macs, acs, tuple(range(1, model.num_steps + 1))))
    return Exits.of(parts)


def _check_steps(x: Tensor, num_steps: int) -> None:
    if x.ndim == 5 and len(x) != num_steps:
        raise UserError(f"a sequence of {len(x)} steps for a model of {num_steps}: the numbers must be the same")
