"""Where branches go: from what the user writes to the names of modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from shortback.choices import nearest
from shortback.errors import UserError
from shortback.health.measurement import MAIN
from shortback.inspection.libraries import is_library_neuron
from shortback.neurons import TimeModule
from shortback.spiking import SpikingNetwork
from shortback.spiking.activations import is_activation


class Calls(NamedTuple):
    """The modules that a forward called, and the ones among them that made zeros and ones of something else."""

    modules: set[nn.Module]
    firing: set[nn.Module]


@runtime_checkable
class HasPlaces(Protocol):
    """A network that says what its blocks and stages are."""

    def blocks(self) -> list[str]: ...
    def stages(self) -> list[str]: ...


def find_places(
    model: nn.Module, at: str | Sequence[str], *, run: Callable[[], Calls] | None = None
) -> dict[str, nn.Module]:
    """The modules to tap, by name, in the order of the network.

    Args:
        model: the network; names are taken inside of a `SpikingNetwork`.
        at: `"blocks"` or `"stages"` (after each but the last, which the main output follows), or names of modules.
        run: the network, for what its modules do; asked where it does not say what its blocks are.

    Raises:
        ValueError: a name that is no module (with the nearest ones), one given twice, or nothing to tap.
    """
    network = model.network if isinstance(model, SpikingNetwork) else model
    modules = {name: module for name, module in network.named_modules() if name}
    if at in ("blocks", "stages"):
        places = (_blocks if at == "blocks" else _stages)(network, run)
        if len(places) < 2:
            raise UserError(
                f"at={at!r}: {type(network).__name__} has {len(places)} {at}, and a branch goes after each but the "
                f"last; name the modules instead, e.g. at={list(modules)[:3]}"
            )
        return {name: modules[name] for name in places[:-1]}
    names = [at] if isinstance(at, str) else list(at)
    if not names:
        raise UserError("at=[]: name at least one module, or write 'blocks' or 'stages'")
    for name in names:
        if name not in modules:
            raise UserError(
                f"at={name!r}: {type(network).__name__} has no such module; "
                f"the nearest are {nearest(name, ['auto', 'blocks', 'stages', *modules])}"
            )
    if MAIN in names:
        raise UserError(f"at={names!r}: {MAIN!r} is the name of the main output among the losses; tap a module in it")
    if len(set(names)) < len(names):
        raise UserError(f"at={names!r}: a module is named twice")
    order = list(modules)
    return {name: modules[name] for name in sorted(names, key=order.index)}


def _blocks(network: nn.Module, run: Callable[[], Calls] | None) -> list[str]:
    """The blocks a network names, or else what looks most like some.

    That is the modules of its own that a container repeats, such as `layer1.0`; else the smallest modules that hold
    both weights and a neuron (or activation), and where these stand in one long sequence, each neuron.
    """
    if isinstance(network, HasPlaces):
        return network.blocks()
    modules, calls = dict(network.named_modules()), None if run is None else run()
    guess = _Guess(frozenset() if calls is None else frozenset(calls.firing))
    names: list[str] = []
    for find in (guess.repeated, guess.smallest, guess.neurons):
        names = [name for name in find(network) if calls is None or modules[name] in calls.modules]
        if len(names) >= 2:
            break
    return names


def _stages(network: nn.Module, run: Callable[[], Calls] | None) -> list[str]:
    """The stages a network names, or else the containers of its blocks."""
    if isinstance(network, HasPlaces):
        return network.stages()
    containers = (name.rpartition(".")[0] for name in _blocks(network, run))
    return [name for name in dict.fromkeys(containers) if name]


@dataclass(frozen=True)
class _Guess:
    """Finds what may be blocks.

    Args:
        firing: modules that were seen to fire; a module of a known class need not be.
    """

    firing: frozenset[nn.Module]

    def repeated(self, network: nn.Module, prefix: str = "") -> list[str]:
        """The modules that stand in a container, are none themselves and hold no such blocks in their turn."""
        found: list[str] = []
        for name, child in network.named_children():
            composite = self._is_composite(child)
            inner = self.repeated(child, f"{prefix}{name}.") if composite else []
            is_block = _is_container(network) and not _is_container(child) and composite
            found += [f"{prefix}{name}"] if is_block and len(inner) < 2 else inner
        return found

    def smallest(self, network: nn.Module) -> list[str]:
        """The modules that hold weights and a neuron and no smaller such; of a sequence its neurons."""
        modules = {name: module for name, module in network.named_modules() if self._is_composite(module)}
        found = []
        for name, module in modules.items():
            inside = f"{name}." if name else ""
            if not any(other.startswith(inside) and other != name for other in modules):
                neurons = [f"{inside}{child}" for child, m in module.named_children() if self._fires(m)]
                in_a_row = len(neurons) > 1 and (_is_container(module) or not name)
                found += neurons if in_a_row else [name] if name else []
        return found

    def neurons(self, network: nn.Module) -> list[str]:
        return [name for name, module in network.named_modules() if name and self._fires(module)]

    def _is_composite(self, module: nn.Module) -> bool:
        inner = [m for m in module.modules() if m is not module]
        return any(map(self._fires, inner)) and any(isinstance(m, nn.modules.conv._ConvNd | nn.Linear) for m in inner)

    def _fires(self, module: nn.Module) -> bool:
        known = isinstance(module, TimeModule) or is_activation(module) or is_library_neuron(module)
        return known or module in self.firing


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)
