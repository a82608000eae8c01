"""Where branches go: from what the user writes to the names of modules."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from shortback.activations import is_activation
from shortback.health.measurement import MAIN
from shortback.libraries import is_library_neuron
from shortback.neurons import TimeModule
from shortback.spiking import SpikingNetwork


@runtime_checkable
class HasPlaces(Protocol):
    """A network that says what its blocks and stages are."""

    def blocks(self) -> list[str]: ...
    def stages(self) -> list[str]: ...


def find_places(
    model: nn.Module, at: str | Sequence[str], *, called: Callable[[], Collection[nn.Module]] | None = None
) -> dict[str, nn.Module]:
    """The modules to tap, by name, in the order of the network.

    Args:
        model: the network; names inside a `SpikingNetwork` are those of the network it wraps.
        at: `"blocks"` or `"stages"` (after each but the last, which the main output follows), or names of modules.
        called: the modules that a forward calls, asked for where it matters: some networks hold others as well.

    Raises:
        ValueError: a name that is no module (with the nearest ones), one given twice, or nothing to tap.
    """
    network = model.network if isinstance(model, SpikingNetwork) else model
    modules = {name: module for name, module in network.named_modules() if name}
    if at in ("blocks", "stages"):
        places = (_blocks if at == "blocks" else _stages)(network, called)
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


_Called = Callable[[], Collection[nn.Module]] | None


def _blocks(network: nn.Module, called: _Called) -> list[str]:
    """The blocks a network names, or else what looks most like some.

    That is the modules of its own that a container repeats, such as `layer1.0`; else the smallest modules that hold
    both weights and a neuron (or activation), and where these stand in one long sequence, each neuron.
    """
    if isinstance(network, HasPlaces):
        return network.blocks()
    modules, runs = dict(network.named_modules()), None if called is None else called()
    names: list[str] = []
    for find in (_repeated, _smallest, _neurons):
        names = [name for name in find(network) if runs is None or modules[name] in runs]
        if len(names) >= 2:
            break
    return names


def _stages(network: nn.Module, called: _Called) -> list[str]:
    """The stages a network names, or else the containers of its blocks."""
    if isinstance(network, HasPlaces):
        return network.stages()
    containers = (name.rpartition(".")[0] for name in _blocks(network, called))
    return [name for name in dict.fromkeys(containers) if name]


def _repeated(network: nn.Module, prefix: str = "") -> list[str]:
    """The modules that stand in a container, are none themselves and hold no such blocks in their turn."""
    found: list[str] = []
    for name, child in network.named_children():
        inner = _repeated(child, f"{prefix}{name}.") if _is_composite(child) else []
        is_block = _is_container(network) and not _is_container(child) and _is_composite(child)
        found += [f"{prefix}{name}"] if is_block and len(inner) < 2 else inner
    return found


def _smallest(network: nn.Module) -> list[str]:
    modules = {name: module for name, module in network.named_modules() if _is_composite(module)}
    found = []
    for name, module in modules.items():
        inside = f"{name}." if name else ""
        if not any(other.startswith(inside) and other != name for other in modules):
            neurons = [f"{inside}{child}" for child, m in module.named_children() if _fires(m)]
            found += neurons if len(neurons) > 1 and (_is_container(module) or not name) else [name] if name else []
    return found


def _neurons(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if name and _fires(module)]


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)


def _is_composite(module: nn.Module) -> bool:
    inner = [m for m in module.modules() if m is not module]
    return any(map(_fires, inner)) and any(isinstance(m, nn.modules.conv._ConvNd | nn.Linear) for m in inner)


def _fires(module: nn.Module) -> bool:
    return isinstance(module, TimeModule) or is_activation(module) or is_library_neuron(module)
