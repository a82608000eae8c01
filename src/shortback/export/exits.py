r"""Early exits of a network: their calibration, and accuracy against the steps or layers an image takes.

The logits of an exit, divided by the temperature of that exit, give its confidence
$\max_k \mathrm{softmax}(O_e / \tau_e)_k$; an image leaves at the first exit whose confidence reaches the threshold.
The temperatures minimise the cross entropy on validation images (Guo et al., ICML 2017).
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
"""The threshold that disables early exit: no confidence is this high."""
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)


@dataclass(frozen=True)
class Exits:
    """Logits and costs of images at every exit, in the order in which images reach the exits.

    Attributes:
        logits: `[E, N, K]`; the last are the whole network's.
        labels: `[N]`.
        macs, acs: operations of each image between the previous exit and this one, `[E, N]`.
        at: number of steps or layers that an image has run through at each exit.
    """

    logits: Tensor
    labels: Tensor
    macs: Tensor
    acs: Tensor
    at: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Exits]) -> Exits:
        """Join the exits of several batches.

        Raises:
            ValueError: `parts` is empty.
        """
        if not parts:
            raise UserError("early exit: there is no image in the batches")
        logits, macs, acs = (torch.cat([getattr(p, name) for p in parts], 1) for name in ("logits", "macs", "acs"))
        return cls(logits, torch.cat([part.labels for part in parts]), macs, acs, parts[0].at)


@dataclass(frozen=True)
class ExitPoint:
    """Accuracy and cost at one threshold.

    Attributes:
        threshold: confidence threshold; `NEVER` where no image leaves early.
        accuracy: in [0, 1].
        mean: mean number of steps or layers per image.
        macs, acs: mean operations per image.
    """

    threshold: float
    accuracy: float
    mean: float
    macs: float
    acs: float


def calibrated(exits: Exits) -> tuple[float, ...]:
    """The temperature of each exit, between 0.05 and 20, that minimises the cross entropy."""
    grid = torch.logspace(-1.3, 1.3, 261)
    found = []
    for logits in exits.logits:
        losses = torch.stack([F.cross_entropy(logits / t, exits.labels) for t in grid])
        found.append(float(grid[losses.argmin()]))
    return tuple(found)


def exit_curve(
    exits: Exits, temperatures: Sequence[float], thresholds: Sequence[float] = THRESHOLDS
) -> list[ExitPoint]:
    """The accuracy and cost at each threshold, from images that were run to every exit; the last has no early exit."""
    return [_point(exits, temperatures, threshold) for threshold in (*thresholds, NEVER)]


def cheapest(points: Sequence[ExitPoint], *, loss: float) -> ExitPoint:
    """The point with the fewest steps or layers that loses at most `loss` of the accuracy of the whole network.

    Args:
        points: as from `exit_curve`, the point without early exit last.
        loss: in absolute accuracy, 0.01 for one percentage point.
    """
    enough = [point for point in points if point.accuracy >= points[-1].accuracy - loss - 1e-6]  # of float32
    return min(enough, key=lambda point: point.mean)


def confidence(logits: Tensor, temperature: float) -> Tensor:
    """The confidence of each image, `[N]`, from logits `[N, K]`."""
    return (logits.float() / temperature).softmax(1).amax(1)


def check_threshold(threshold: float, temperatures: Sequence[float] | None, *, exits: int, what: str) -> list[float]:
    """Check a threshold and the number of temperatures.

    Args:
        exits: number of exits.
        what: what the exits are, in the plural, for the error message.

    Returns:
        The temperatures of the exits; 1 for each if none are given.

    Raises:
        ValueError: `threshold` is neither in (0, 1] nor `NEVER`, or there are not `exits` temperatures.
    """
    if not 0 < threshold <= 1 and threshold != NEVER:
        meant = f"; {threshold:g} % is {threshold / 100:g}" if NEVER < threshold <= 100 else ""
        raise UserError(f"threshold={threshold}: must be a confidence, above 0 and at most 1{meant}")
    if temperatures is not None and len(temperatures) != exits:
        raise UserError(f"{len(temperatures)} temperatures for {exits} {what}")
    return [1.0] * exits if temperatures is None else list(temperatures)


class RowCount:
    """Counts the operations of a network for each image of a batch, since the last call of `start`.

    Args:
        network: its convolutions and linear layers get hooks.
        heads: theirs do too; only operations on inputs `[N, ...]`, a row per image, are counted, not calls.
        num_steps: time steps that a call may fold into its rows; 1 if the network runs step by step.
    """

    def __init__(self, network: nn.Module, *, heads: Iterable[nn.Module] = (), num_steps: int = 1) -> None:
        self.num_steps = num_steps
        self.macs = self.acs = torch.zeros(0)
        self.calls = 0
        for module in network.modules():
            if is_counted(module):
                module.register_forward_hook(self._note, with_kwargs=True)
        for module in (module for head in heads for module in head.modules() if is_counted(module)):
            module.register_forward_hook(self._note_in_head, with_kwargs=True)

    def start(self, count: int) -> None:
        """Start counting from zero, for a batch of `count` images."""
        self.macs, self.acs = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        self.calls = 0

    def _note(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        self.calls += 1
        self._add(module, input_of(module, args, kwargs), output)

    def _note_in_head(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        x = input_of(module, args, kwargs)
        if x.ndim > 1 and len(x) == len(self.macs):  # rows need not be images, if a layer computes weights
            self._add(module, x, output)

    def _add(self, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        """Add the operations of one call of a layer.

        The rows of `x` are images, or images by step, `[T*N, ...]`; or several for each of these, such as windows.
        """
        effective, _ = row_operations(layer, x, output)
        # Each image is judged as if alone, whereas `count_operations` asks whether the whole batch is spikes.
        images = len(self.macs)
        steps = self.num_steps if len(effective) % (self.num_steps * images) == 0 else 1
        rows = (steps, images, -1)
        binary = ((x == 0) | (x == 1)).reshape(*rows).all(2).all(0).cpu()
        effective = effective.double().cpu().reshape(rows).sum((0, 2))
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
