r"""Stop for each image when the network is sure: the steps that are left out are saved.

After step $t$ the logits so far, $\bar O_t = \frac{1}{t} \sum_{k \le t} O[k]$, divided by a temperature of that step,
give the confidence $\max_k \mathrm{softmax}(\bar O_t / \tau_t)_k$; an image leaves at the first step at which it is at
a threshold or above. The temperatures are those of the least cross entropy on validation images (Guo et al., ICML
2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.export.operations import row_operations
from shortback.export.stream import Stream, stream
from shortback.spiking import SpikingNetwork

Batches = Iterable[tuple[Tensor, Tensor]]
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)


@dataclass(frozen=True)
class Steps:
    """What a network says after every step.

    Attributes:
        logits: the mean of the outputs so far, `[T, N, K]`.
        labels: `[N]`.
        macs, acs: operations of each image at each step, `[T, N]`.
    """

    logits: Tensor
    labels: Tensor
    macs: Tensor
    acs: Tensor


@dataclass(frozen=True)
class ExitPoint:
    """What a threshold gives.

    Attributes:
        threshold: of confidence; above 1, no image leaves early.
        accuracy: in [0, 1].
        mean_steps: an image.
        macs, acs: an image.
    """

    threshold: float
    accuracy: float
    mean_steps: float
    macs: float
    acs: float


class EarlyExit:
    """Inference in which images that are finished leave the batch.

    Args:
        model: its weights are used, not copied.
        threshold: of confidence, in (0, 1]; above 1 every image takes all steps.
        temperatures: of each step; 1 if not given.

    Raises:
        ValueError: a threshold that is not above 0, temperatures of another number of steps, or as of `stream`.
    """

    def __init__(self, model: SpikingNetwork, *, threshold: float, temperatures: Sequence[float] | None = None) -> None:
        if not threshold > 0:
            raise UserError(f"threshold={threshold}: is a confidence, above 0")
        if temperatures is not None and len(temperatures) != model.num_steps:
            raise UserError(f"{len(temperatures)} temperatures for {model.num_steps} steps")
        self.stream, self.threshold = stream(model), threshold
        self.temperatures = tuple(temperatures) if temperatures is not None else (1.0,) * model.num_steps

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, K]` and the steps that each image took, `[N]`, of `[N, C, H, W]` or `[T, N, C, H, W]`."""
        count = x.shape[x.ndim - 4]
        active, state = torch.arange(count, device=x.device), None
        steps = torch.zeros(count, dtype=torch.int64, device=x.device)
        logits: Tensor | None = None
        for step, temperature in enumerate(self.temperatures):
            frame = x if x.ndim == 4 else x[step]
            so_far, state = self.stream(frame if len(active) == count else frame[active], state)
            if logits is None:
                logits = torch.empty_like(so_far)
            done = _confidence(so_far, temperature) >= self.threshold
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
def by_step(model: SpikingNetwork, batches: Batches) -> Steps:
    """Run a network step by step, and count the operations of every image at every step.

    Raises:
        ValueError: no batch, or as of `stream`.
    """
    streamed = stream(model)
    count = _RowCount(streamed)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    parts: list[Steps] = []
    for images, labels in batches:
        x, state, rows = images.to(device), None, []
        for step in range(model.num_steps):
            count.start(x.shape[x.ndim - 4])
            logits, state = streamed(x if x.ndim == 4 else x[step], state)
            rows.append((logits.float().cpu(), count.macs.cpu(), count.acs.cpu()))
        logits, macs, acs = map(torch.stack, zip(*rows, strict=True))
        parts.append(Steps(logits, labels.cpu(), macs, acs))
    if not parts:
        raise UserError("early exit: there is no image in the batches")
    return Steps(
        torch.cat([part.logits for part in parts], 1),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.macs for part in parts], 1),
        torch.cat([part.acs for part in parts], 1),
    )


def calibrated(steps: Steps) -> tuple[float, ...]:
    """The temperature of each step of the least cross entropy, between 0.05 and 20."""
    grid = torch.logspace(-1.3, 1.3, 261)
    found = []
    for logits in steps.logits:
        losses = torch.stack([F.cross_entropy(logits / t, steps.labels) for t in grid])
        found.append(float(grid[losses.argmin()]))
    return tuple(found)


def exit_curve(
    steps: Steps, temperatures: Sequence[float], thresholds: Sequence[float] = THRESHOLDS
) -> list[ExitPoint]:
    """What thresholds give on images that were run step by step; the last point is without early exit."""
    return [_point(steps, temperatures, threshold) for threshold in (*thresholds, 2.0)]


def cheapest(points: Sequence[ExitPoint], *, loss: float) -> ExitPoint:
    """The point of the fewest steps that loses no more than so much accuracy to all steps."""
    enough = [point for point in points if point.accuracy >= points[-1].accuracy - loss]
    return min(enough, key=lambda point: point.mean_steps)


def _point(steps: Steps, temperatures: Sequence[float], threshold: float) -> ExitPoint:
    sure = torch.stack(
        [
            _confidence(logits, temperature) >= threshold
            for logits, temperature in zip(steps.logits, temperatures, strict=True)
        ]
    )
    sure[-1] = True
    last = sure.int().argmax(0)  # [N], the step at which each image leaves
    images = torch.arange(len(last))
    running = torch.arange(len(sure)).unsqueeze(1) <= last
    return ExitPoint(
        threshold=threshold,
        accuracy=float((steps.logits[last, images].argmax(1) == steps.labels).float().mean()),
        mean_steps=float(last.float().mean()) + 1,
        macs=float((steps.macs * running).sum() / len(last)),
        acs=float((steps.acs * running).sum() / len(last)),
    )


def _confidence(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(1).amax(1)


class _RowCount:
    """Operations of one step of a stream, by image."""

    def __init__(self, streamed: Stream) -> None:
        self.macs = self.acs = torch.zeros(0)
        for module in streamed.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(self._note)

    def start(self, count: int) -> None:
        self.macs, self.acs = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)

    def _note(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        x: Tensor = inputs[0]
        effective, _ = row_operations(module, x, output)
        # By image, as it would be alone: `count_operations` asks whether a whole batch is of spikes.
        binary = ((x == 0) | (x == 1)).flatten(1).all(1).cpu()
        effective = effective.double().cpu()
        self.acs += effective * binary
        self.macs += effective * ~binary
