"""A network that has branches, seen without them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Branched(Protocol):
    """What `attach` returns, as far as it matters to those who know no branches."""

    model: nn.Module
    heads: nn.ModuleList
    places: tuple[str, ...]
    num_steps: int | None
    batch_axis: int | None


def trunk_of(net: nn.Module) -> nn.Module:
    """The network that was given to `attach`, if `net` is what came back; otherwise `net` itself."""
    return net.model if isinstance(net, Branched) else net
