r"""Stop in depth for each image when a branch is sure: the layers that are left out are saved.

The branches of training are the exits, in the order of the network, and its own output is the last; see
`shortback.export.exits`. Logits that were added up in training (eq. 7 and 10 of Guo et al., NeurIPS 2024) taught the
sum and not each branch, and a coefficient that falls to 0 stops teaching them: a network that is to leave early is
trained with `combine: additive` and a coefficient that stays (Teerapittayanon et al., ICPR 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.export.accepted import check_branched
from shortback.export.exits import Batches, Exits, RowCount, check_threshold, confidence
from shortback.inspection.layout import average_over_space, average_over_time
from shortback.shortcuts import ShortcutNetwork
from shortback.spiking import SpikingNetwork
from shortback.spiking.static_input import shared_copy

Decide = Callable[[int, Tensor, Tensor], "Tensor | None"]


class DepthExit:
    """Inference in which images that a branch is sure of leave the network there, all their steps at once.

    Args:
        net: with branches, at places through which all of the network runs; its weights are used, not copied.
        threshold: of confidence, in (0, 1]; with `shortback.export.exits.NEVER` every image takes all layers.
        temperatures: of each branch and the output; 1 if not given.

    Raises:
        ValueError: no `SpikingNetwork` with branches, a threshold that is not in (0, 1], temperatures of another
            number of exits.
    """

    def __init__(self, net: ShortcutNetwork, *, threshold: float, temperatures: Sequence[float] | None = None) -> None:
        self._exits = _Exits(net)
        self.threshold = threshold
        self.temperatures = check_threshold(
            threshold, temperatures, exits=len(net.places) + 1, what="exits, the output among them"
        )

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, K]` and the exit of each image, `[N]`: the number of its branch, or of all branches.

        Args:
            x: `[N, C, H, W]` or `[T, N, C, H, W]`.

        Raises:
            ValueError: a branch that some of the network runs past, so that images cannot leave there.
        """
        active = torch.arange(x.shape[x.ndim - 4], device=x.device)
        exits = torch.full_like(active, len(self.temperatures) - 1)
        found: list[tuple[Tensor, Tensor]] = []

        def decide(index: int, logits: Tensor, _: Tensor) -> Tensor | None:
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
    """Run all of a network, and count the operations of every image up to every branch; `Exits.at` are layers.

    The head of a branch is counted with the operations that lead to it, whether or not an image leaves there.

    Raises:
        ValueError: no batch, or as of `DepthExit`.
    """
    exits = _Exits(net)
    count = RowCount(exits.model)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    parts: list[Exits] = []
    for images, labels in batches:
        x, rows = images.to(device), []

        def note(logits: Tensor, x: Tensor = x, rows: list[Any] = rows) -> None:
            rows.append((logits.float().cpu(), count.macs, count.acs, count.calls))
            count.start(x.shape[x.ndim - 4])

        def decide(index: int, logits: Tensor, features: Tensor, note: Callable[[Tensor], None] = note) -> None:
            if isinstance(head := net.heads[index], nn.Linear):
                count.add(head, features, logits)
            note(logits)

        count.start(x.shape[x.ndim - 4])
        last = exits.run(x, decide)
        assert last is not None
        note(last)
        logits, macs, acs, calls = zip(*rows, strict=True)
        at = tuple(sum(calls[: index + 1]) for index in range(len(calls)))
        parts.append(Exits(torch.stack(logits), labels.cpu(), torch.stack(macs), torch.stack(acs), at))
    return Exits.of(parts)


class _NoImageLeftError(Exception):
    """There is no image left."""


class _Exits:
    """A copy of the network, with the same weights, that asks at every branch which images go on."""

    def __init__(self, net: ShortcutNetwork) -> None:
        check_branched(net, "early exit in depth")
        self.net = net
        model = shared_copy(net.model)
        assert isinstance(model, SpikingNetwork)
        self.model = model.eval()
        self.model.readout = "mean"
        self._decide: Decide = lambda *_: None
        self._count = 0
        self._active = torch.arange(0)
        self._left_at = ""
        for index, place in enumerate(net.places):
            self.model.network.get_submodule(place).register_forward_hook(partial(self._exit, index))
        self.model.network.register_forward_hook(self._fill_up)

    def run(self, x: Tensor, decide: Decide) -> Tensor | None:
        """The logits of the images that took no branch, None if there are none.

        Args:
            decide: of the number of a branch, its logits `[N, K]` and what its head was given, which images go on,
                `[N]`, or None for all.
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
            before = f"no image can leave at {place}, which is not run by step: tap what is after neurons"
            raise UserError(self._past() if self._left_at else before)
        average = average_over_space(output, tap.layout, features=tap.features_at)
        features = average_over_time(average, len(self._active), tap.layout)
        go_on = self._decide(index, self.net.heads[index](features), features)
        if go_on is None:
            return None
        self._active, self._left_at = self._active[go_on], self.net.places[index]
        if not len(self._active):
            raise _NoImageLeftError
        return output[go_on.repeat(steps)]

    def _fill_up(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """A row a step and image again, as `SpikingNetwork` has it: images that have left get zeros."""
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
            f"images cannot leave at {self._left_at}: some of the network runs past it, and still has all of them; "
            "tap whole blocks"
        )
