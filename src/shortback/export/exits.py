r"""What leaving early gives: exits of a network, calibrated, and the curve of accuracy by what an image takes.

Every exit has logits; divided by a temperature of that exit they give the confidence
$\max_k \mathrm{softmax}(O_e / \tau_e)_k$, and an image leaves at the first exit at which it is at a threshold or above.
The temperatures are those of the least cross entropy on validation images (Guo et al., ICML 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.export.arguments import input_of
from shortback.export.counting import is_counted, row_operations

Batches = Iterable[tuple[Tensor, Tensor]]
NEVER = 2.0
"""The threshold without early exit: no confidence is as high."""
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)


@dataclass(frozen=True)
class Exits:
    """What a network says at every exit, in the order in which images come to them.

    Attributes:
        logits: `[E, N, K]`; the last are those of the whole network.
        labels: `[N]`.
        macs, acs: operations of each image from the exit before to this one, `[E, N]`.
        at: what an image has run through at each exit, steps or layers.
    """

    logits: Tensor
    labels: Tensor
    macs: Tensor
    acs: Tensor
    at: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Exits]) -> Exits:
        """Those of several batches together.

        Raises:
            ValueError: there is none.
        """
        if not parts:
            raise UserError("early exit: there is no image in the batches")
        logits, macs, acs = (torch.cat([getattr(p, name) for p in parts], 1) for name in ("logits", "macs", "acs"))
        return cls(logits, torch.cat([part.labels for part in parts]), macs, acs, parts[0].at)


@dataclass(frozen=True)
class ExitPoint:
    """What a threshold gives.

    Attributes:
        threshold: of confidence; `NEVER` where no image leaves early.
        accuracy: in [0, 1].
        mean: steps or layers an image.
        macs, acs: an image.
    """

    threshold: float
    accuracy: float
    mean: float
    macs: float
    acs: float


def calibrated(exits: Exits) -> tuple[float, ...]:
    """The temperature of each exit of the least cross entropy, between 0.05 and 20."""
    grid = torch.logspace(-1.3, 1.3, 261)
    found = []
    for logits in exits.logits:
        losses = torch.stack([F.cross_entropy(logits / t, exits.labels) for t in grid])
        found.append(float(grid[losses.argmin()]))
    return tuple(found)


def exit_curve(
    exits: Exits, temperatures: Sequence[float], thresholds: Sequence[float] = THRESHOLDS
) -> list[ExitPoint]:
    """What thresholds give on images that were at every exit; the last point is without early exit."""
    return [_point(exits, temperatures, threshold) for threshold in (*thresholds, NEVER)]


def cheapest(points: Sequence[ExitPoint], *, loss: float) -> ExitPoint:
    """The point of the fewest steps or layers that loses no more than so much accuracy to the whole network."""
    enough = [point for point in points if point.accuracy >= points[-1].accuracy - loss]
    return min(enough, key=lambda point: point.mean)


def confidence(logits: Tensor, temperature: float) -> Tensor:
    """Of logits `[N, K]`, by image `[N]`."""
    return (logits / temperature).softmax(1).amax(1)


def check_threshold(threshold: float, temperatures: Sequence[float] | None, *, exits: int, what: str) -> list[float]:
    """The temperatures of so many exits, 1 where none are given.

    Args:
        what: the exits are, in the plural.

    Raises:
        ValueError: a threshold that is not in (0, 1] and not `NEVER`, temperatures of another number.
    """
    if not 0 < threshold <= 1 and threshold != NEVER:
        meant = f"; {threshold:g} % is {threshold / 100:g}" if NEVER < threshold <= 100 else ""
        raise UserError(f"threshold={threshold}: is a confidence, above 0 and at most 1{meant}")
    if temperatures is not None and len(temperatures) != exits:
        raise UserError(f"{len(temperatures)} temperatures for {exits} {what}")
    return [1.0] * exits if temperatures is None else list(temperatures)


class RowCount:
    """Operations of a network on a batch, by image: those since `start` was called.

    Args:
        network: its layers get hooks.
    """

    def __init__(self, network: nn.Module) -> None:
        self.macs = self.acs = torch.zeros(0)
        self.calls = 0
        for module in network.modules():
            if is_counted(module):
                module.register_forward_hook(self._note, with_kwargs=True)

    def start(self, count: int) -> None:
        """Of so many images from here."""
        self.macs, self.acs = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        self.calls = 0

    def _note(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        self.calls += 1
        self.add(module, input_of(module, args, kwargs), output)

    def add(self, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        """Count a layer; rows of `x` are images, or images by step, `[T*N, ...]`."""
        effective, _ = row_operations(layer, x, output)
        # By image, as it would be alone: `count_operations` asks whether a whole batch is of spikes.
        by_step = (-1, len(self.macs))
        binary = ((x == 0) | (x == 1)).flatten(1).all(1).view(by_step).all(0).cpu()
        effective = effective.double().cpu().view(by_step).sum(0)
        self.acs += effective * binary
        self.macs += effective * ~binary


def _point(exits: Exits, temperatures: Sequence[float], threshold: float) -> ExitPoint:
    sure = torch.stack(
        [
            confidence(logits, temperature) >= threshold
            for logits, temperature in zip(exits.logits, temperatures, strict=True)
        ]
    )
    sure[-1] = True
    last = sure.int().argmax(0)  # [N], the exit at which each image leaves
    images = torch.arange(len(last))
    running = torch.arange(len(sure)).unsqueeze(1) <= last
    return ExitPoint(
        threshold=threshold,
        accuracy=float((exits.logits[last, images].argmax(1) == exits.labels).float().mean()),
        mean=float(torch.tensor(exits.at, dtype=torch.float64)[last].mean()),
        macs=float((exits.macs * running).sum() / len(last)),
        acs=float((exits.acs * running).sum() / len(last)),
    )
