"""Where branches go: from what the user writes to the names of modules."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from shortback.health.measurement import MAIN
from shortback.neurons import TimeModule
from shortback.spiking import SpikingNetwork


@runtime_checkable
class HasPlaces(Protocol):
    """A network that says what its blocks and stages are."""

    def blocks(self) -> list[str]: ...
    def stages(self) -> list[str]: ...


def find_places(model: nn.Module, at: str | Sequence[str]) -> dict[str, nn.Module]:
    """The modules to tap, by name, in the order of the network.

    Args:
        model: the network; names inside a `SpikingNetwork` are those of the network it wraps.
        at: `"blocks"` or `"stages"` (after each but the last, which the main output follows), or names of modules.

    Raises:
        ValueError: a name that is no module (with the nearest ones), one given twice, or nothing to tap.
    """
    network = model.network if isinstance(model, SpikingNetwork) else model
    modules = {name: module for name, module in network.named_modules() if name}
    if at in ("blocks", "stages"):
        places = _blocks(network) if at == "blocks" else _stages(network)
        if len(places) < 2:
            raise ValueError(
                f"at={at!r}: {type(network).__name__} has {len(places)} {at}, and a branch goes after each but the "
                f"last; name the modules instead, e.g. at={list(modules)[:3]}"
            )
        return {name: modules[name] for name in places[:-1]}
    names = [at] if isinstance(at, str) else list(at)
    if not names:
        raise ValueError("at=[]: name at least one module, or write 'blocks' or 'stages'")
    for name in names:
        if name not in modules:
            nearest = difflib.get_close_matches(name, ["auto", "blocks", "stages", *modules], n=3, cutoff=0.3)
            raise ValueError(
                f"at={name!r}: {type(network).__name__} has no such module; "
                f"the nearest are {', '.join(nearest) or 'none'}"
            )
    if MAIN in names:
        raise ValueError(f"at={names!r}: {MAIN!r} is the name of the main output among the losses; tap a module in it")
    if len(set(names)) < len(names):
        raise ValueError(f"at={names!r}: a module is named twice")
    order = list(modules)
    return {name: modules[name] for name in sorted(names, key=order.index)}


def _blocks(network: nn.Module) -> list[str]:
    """The blocks a network names, or else the smallest modules that hold both weights and a neuron (or activation)."""
    if isinstance(network, HasPlaces):
        return network.blocks()
    composite = [name for name, module in network.named_modules() if name and _is_composite(module)]
    return [name for name in composite if not any(other.startswith(f"{name}.") for other in composite)]


def _stages(network: nn.Module) -> list[str]:
    """The stages a network names, or else the containers of its blocks."""
    if isinstance(network, HasPlaces):
        return network.stages()
    containers = (name.rpartition(".")[0] for name in _blocks(network))
    return [name for name in dict.fromkeys(containers) if name]


def _is_composite(module: nn.Module) -> bool:
    inner = [m for m in module.modules() if m is not module]
    fires = any(isinstance(m, TimeModule | nn.ReLU | nn.ReLU6 | nn.GELU | nn.SiLU | nn.Hardswish) for m in inner)
    return fires and any(isinstance(m, nn.Conv2d | nn.Linear) for m in inner)
