"""The network without its branches, for code that knows nothing about branches."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Branched(Protocol):
    """What `attach` returns, as far as code that knows nothing about branches is concerned."""

    model: nn.Module
    heads: nn.ModuleList
    places: tuple[str, ...]
    num_steps: int | None
    batch_axis: int | None


def trunk_of(net: nn.Module) -> nn.Module:
    """The network that was passed to `attach` if `net` is its result; otherwise `net` itself."""
    return net.model if isinstance(net, Branched) else net
