r"""Early exit in depth: an image leaves at the first branch that is confident, which saves the layers after it.

The branches from training are the exits, in network order, and the network's own output is the last; see
`shortback.export.exits`. Training on added logits (eq. 7 and 10 of Guo et al., NeurIPS 2024) teaches the sum rather
than each branch, and a coefficient that falls to 0 stops teaching the branches. For early exit, train with
`combine: additive` and a coefficient that stays (Teerapittayanon et al., ICPR 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shortback.copies import shared_copy
from shortback.errors import UserError
from shortback.export.accepted import check_branched, refuse_batch_statistics
from shortback.export.exits import Batches, Exits, RowCount, check_threshold, confidence
from shortback.inspection.layout import average_over_space, average_over_time
from shortback.shortcuts import ShortcutNetwork
from shortback.shortcuts.heads import cast_for
from shortback.spiking import SpikingNetwork

Decide = Callable[[int, Tensor], "Tensor | None"]


class DepthExit:
    """Inference in which an image leaves at the first branch that is confident, with all its steps at once.

    Args:
        net: network with branches, at places that no path of the network bypasses; its weights are shared, not copied.
        threshold: confidence in (0, 1]; with `shortback.export.exits.NEVER` every image takes all layers.
        temperatures: one for each branch and one for the output; 1 if not given.

    Raises:
        ValueError: `net` is no `SpikingNetwork` with branches or has norms without running statistics, `threshold` is
            not in (0, 1], or the number of `temperatures` is not the number of exits.
    """

    def __init__(self, net: ShortcutNetwork, *, threshold: float, temperatures: Sequence[float] | None = None) -> None:
        self._exits = _Exits(net)
        self.threshold = threshold
        self.temperatures = check_threshold(
            threshold, temperatures, exits=len(net.places) + 1, what="exits, the output among them"
        )

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a batch.

        Args:
            x: `[N, C, H, W]` or `[T, N, C, H, W]`.

        Returns:
            Logits `[N, K]`, and the exit of each image, `[N]`: the index of its branch, or the number of branches for
            the network's output.

        Raises:
            ValueError: part of the network bypasses a branch, so that images cannot leave there.
        """
        active = torch.arange(x.shape[x.ndim - 4], device=x.device)
        exits = torch.full_like(active, len(self.temperatures) - 1)
        found: list[tuple[Tensor, Tensor]] = []

        def decide(index: int, logits: Tensor) -> Tensor | None:
            nonlocal active
            done = confidence(logits, self.temperatures[index]) >= self.threshold
            if not done.any():
                return None
            found.append((active[done], logits[done]))
            exits[active[done]] = index
            active = active[~done]
            return ~done

        last = self._exits.run(x, decide)
        if last is not None:
            found.append((active, last))
        images, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        return torch.empty_like(logits).index_copy_(0, images, logits), exits


@torch.no_grad()
def by_depth(net: ShortcutNetwork, batches: Batches) -> Exits:
    """Run the whole network, and count each image's operations up to every branch; `Exits.at` counts layer calls.

    A head's layers whose input has a row for each image count towards the operations up to its branch, whether or not
    an image leaves there.

    Raises:
        ValueError: there is no batch, or as for `DepthExit`.
    """
    exits = _Exits(net)
    count = RowCount(exits.model, heads=exits.heads, num_steps=exits.model.num_steps)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    parts: list[Exits] = []
    for images, labels in batches:
        if not len(labels):
            continue
        x, rows = images.to(device), []

        def note(index: int, logits: Tensor, x: Tensor = x, rows: list[Any] = rows) -> None:
            rows.append((logits.float().cpu(), count.macs, count.acs, count.calls))
            count.start(x.shape[x.ndim - 4])

        count.start(x.shape[x.ndim - 4])
        last = exits.run(x, note)
        assert last is not None
        note(len(rows), last)
        logits, macs, acs, calls = zip(*rows, strict=True)
        at = tuple(sum(calls[: index + 1]) for index in range(len(calls)))
        parts.append(Exits(torch.stack(logits), labels.cpu(), torch.stack(macs), torch.stack(acs), at))
    return Exits.of(parts)


class _NoImageLeftError(Exception):
    """Every image has left the network."""


class _Exits:
    """A copy of the network, sharing its weights, that asks at every branch which images go on."""

    def __init__(self, net: ShortcutNetwork) -> None:
        check_branched(net, "early exit in depth")
        refuse_batch_statistics(net, "early exit in depth")
        self.net = net
        model = shared_copy(net.model)
        assert isinstance(model, SpikingNetwork)
        self.model = model.eval()
        self.model.readout = "mean"
        self.heads = [shared_copy(head).eval() for head in net.heads]
        self._decide: Decide = lambda *_: None
        self._count = 0
        self._active = torch.arange(0)
        self._left_at = ""
        for index, place in enumerate(net.places):
            self.model.network.get_submodule(place).register_forward_hook(partial(self._exit, index))
        self.model.network.register_forward_hook(self._fill_up)

    def run(self, x: Tensor, decide: Decide) -> Tensor | None:
        """The logits of the images that reach the end of the network; None if there are none.

        Args:
            decide: takes the index of a branch and its logits `[N, K]`; returns a mask `[N]` of the images that go on,
                or None for all.
        """
        self._decide, self._count, self._left_at = decide, x.shape[x.ndim - 4], ""
        self._active = torch.arange(self._count, device=x.device)
        try:
            return self.model(x)[self._active]
        except _NoImageLeftError:
            return None
        except RuntimeError as error:
            if not self._left_at:
                raise
            raise UserError(f"{self._past()} ({error})") from error

    def _exit(self, index: int, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        tap, steps = self.net.taps[index], self.model.num_steps
        if len(output) != steps * len(self._active):
            place = self.net.places[index]
            before = f"no image can leave at {place}, which does not run at every step: tap a place after neurons"
            raise UserError(self._past() if self._left_at else before)
        average = average_over_space(output, tap.layout, features=tap.features_at)
        features = average_over_time(average, len(self._active), tap.layout)
        head = self.heads[index]
        go_on = self._decide(index, head(cast_for(head, features)))
        if go_on is None:
            return None
        self._active, self._left_at = self._active[go_on], self.net.places[index]
        if not len(self._active):
            raise _NoImageLeftError
        return output[go_on.repeat(steps)]

    def _fill_up(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Restore a row for every step and image, as `SpikingNetwork` expects: images that have left get zeros."""
        if not self._left_at:
            return None
        steps = self.model.num_steps
        if len(output) != steps * len(self._active):
            raise UserError(self._past())
        whole = output.new_zeros(steps, self._count, *output.shape[1:])
        whole[:, self._active] = output.unflatten(0, (steps, -1))
        return whole.flatten(0, 1)

    def _past(self) -> str:
        return (
            f"images cannot leave at {self._left_at}: some of the network runs past it and still holds all images; "
            "tap whole blocks"
        )
