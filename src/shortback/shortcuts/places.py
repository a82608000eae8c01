"""Where branches go: from what the user writes to the names of modules."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from torch import nn

from shortback.choices import nearest
from shortback.errors import UserError
from shortback.inspection.calls import Calls, holds_layer, is_known_neuron
from shortback.spiking import SpikingNetwork
from shortback.spiking.activations import is_activation

log = logging.getLogger("shortback")

_MAKE_MODULES = "put each neuron, or conv, norm and neuron together, into an nn.Module of its own"


class HasPlaces(Protocol):
    """A network that says what its blocks and stages are."""

    def blocks(self) -> list[str]: ...
    def stages(self) -> list[str]: ...


def find_places(
    model: nn.Module, at: str | Sequence[str], *, run: Callable[[], Calls] | None = None
) -> dict[str, nn.Module]:
    """The modules to tap, by name: blocks and stages in the order of their calls, others in that of the network.

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
        calls = None if run is None or _has_places(network) else run()
        places = (_blocks if at == "blocks" else _stages)(network, calls)
        if len(places) < 2:
            raise UserError(
                f"at={at!r}: {type(network).__name__} has {len(places)} {at}, and a branch goes after each but the "
                f"last; {_what_instead(network, calls)}"
            )
        return {name: modules[name] for name in places[:-1]}
    names = [at] if isinstance(at, str) else list(at)
    if not names:
        raise UserError("at=[]: name at least one module, or write 'blocks' or 'stages'")
    for name in names:
        if name not in modules and (module := _registered_as(network, name)) is not None:
            modules[name] = module  # a second name of a module
        if name not in modules:
            raise UserError(
                f"at={name!r}: {type(network).__name__} has no such module; "
                f"the nearest are {nearest(name, ['auto', 'blocks', 'stages', *modules])}"
            )
    if len({modules[name] for name in names}) < len(names):
        raise UserError(f"at={names!r}: a module is named twice")
    order = {module: index for index, module in enumerate(network.modules())}
    return {name: modules[name] for name in sorted(names, key=lambda name: order[modules[name]])}


def _registered_as(network: nn.Module, name: str) -> nn.Module | None:
    try:
        return network.get_submodule(name) if name else None
    except AttributeError:
        return None


def _has_places(network: nn.Module) -> HasPlaces | None:
    """The network, if it has the methods, and not modules of these names."""
    has = all(inspect.ismethod(getattr(network, name, None)) for name in ("blocks", "stages"))
    return cast("HasPlaces", network) if has else None


def warn_of_currents(model: nn.Module, places: Iterable[str], calls: Calls) -> None:
    """Say so where modules are named in a network whose neurons are lines of its `forward`: none returns spikes."""
    if calls.spikes_inside and not _has_units(model, calls):
        log.warning(
            "no module of %s returns spikes, so the branches at %s sit on currents: to tap spikes, %s",
            *(type(model).__name__, ", ".join(places), _MAKE_MODULES),
        )


def _has_units(network: nn.Module, calls: Calls) -> bool:
    """Whether any module fires, is known as a neuron, or is an activation that is called."""
    return bool(calls.firing) or any(is_activation(m) and calls.counts[m] for m in network.modules())


def _what_instead(network: nn.Module, calls: Calls | None) -> str:
    """What to do about a network without blocks."""
    by_name = f"name the modules instead, e.g. at={_examples(network, calls)}{_hint_of_steps(network, calls)}"
    if calls is None or _has_units(network, calls):
        return by_name
    if calls.silent:
        names = [name for name, module in network.named_modules() if module in calls.silent]
        return (
            f"none fired: {', '.join(names[:3])} returned zeros alone, so neurons are not to be told from other "
            f"modules: lower their threshold, or name them, e.g. at={names[:-1] or names}"
        )
    of_no_neurons = "" if calls.spikes_inside else f". In a network without neurons {by_name}"
    return f"no module of {type(network).__name__} returns spikes: {_MAKE_MODULES}{of_no_neurons}"


def _examples(network: nn.Module, calls: Calls | None) -> list[str]:
    """Names of modules that can be tapped: neurons and layers that are called once, but for the last, the output."""
    names = {module: name for name, module in network.named_modules() if name}
    if calls is None:
        return list(names.values())[:3]
    once = [name for module, name in names.items() if calls.counts[module] == 1]
    firing = [name for module, name in names.items() if name in once and module in calls.firing]
    layers = [name for module, name in names.items() if name in once and holds_layer(module)]
    several = [name for module, name in names.items() if calls.counts[module] > 1 and holds_layer(module)]
    return (firing or layers[:-1] or once or several[:-1])[:3]


def _hint_of_steps(network: nn.Module, calls: Calls | None) -> str:
    """What to do about neurons that are never called, as where `step()` runs them."""
    names = (
        [] if calls is None else [n for n, m in network.named_modules() if is_known_neuron(m) and not calls.counts[m]]
    )
    return (
        f". {', '.join(names[:3])}: never called, and neuron.step(x, state) is not seen; to tap spikes, have a module "
        "of your own call it, with def forward(self, x, state): return self.neuron.step(x, state)"
        if names
        else ""
    )


def _blocks(network: nn.Module, calls: Calls | None) -> list[str]:
    """The blocks a network names, or else what looks most like some.

    That is the modules of its own that a container repeats, such as `layer1.0`; else the smallest modules that hold
    both weights and a neuron (or activation), and where these stand in one long sequence, each neuron; where some are
    neurons with weights, as recurrent ones, the others beside them too; where one neuron serves all layers, these
    layers. Where nothing is seen to fire, blocks hold weights alone. They are in the order in which they return.
    """
    if own := _has_places(network):
        return own.blocks()
    names = {module: name for name, module in network.named_modules() if name}
    guess = _Guess(frozenset() if calls is None else frozenset(calls.firing))
    finds = [guess.repeated, guess.smallest, guess.neurons]
    if calls is not None:
        finds.append(lambda network: [names[layer] for layer in calls.before_neurons if layer in names])
        if not calls.firing:
            finds.append(_Guess(frozenset(), weights_suffice=True).repeated)
    found: list[str] = []
    for find in finds:
        found = [name for name in find(network) if calls is None or calls.counts[network.get_submodule(name)]]
        if len(found) >= 2:
            break
    if calls is not None and len(found) >= 2:  # with fewer it is an error
        order = {module: index for index, module in enumerate(calls.counts)}
        found = _with_other_neurons(network, found, calls)
        found.sort(key=lambda name: order[network.get_submodule(name)])
        _warn_of_few(network, found, calls)
    return found


def _with_other_neurons(network: nn.Module, found: list[str], calls: Calls) -> list[str]:
    """Blocks that are neurons with weights, as recurrent ones, and the neurons without that stand beside them.

    Those are called as often: one that serves several layers is none of a row.
    """
    blocks = {network.get_submodule(name) for name in found}
    if not all(is_known_neuron(block) or block in calls.firing for block in blocks):
        return found
    times, names, inside = {calls.counts[block] for block in blocks}, list[str](), set[nn.Module]()
    for name, module in network.named_modules():
        is_neuron = is_known_neuron(module) or module in calls.firing
        if module in blocks or (name and module not in inside and is_neuron and calls.counts[module] in times):
            names.append(name)
            inside.update(module.modules())
    return names


def _warn_of_few(network: nn.Module, found: list[str], calls: Calls) -> None:
    """Say so where a class of blocks is repeated in the network and hardly any were found."""
    inside = {part for name in found for part in network.get_submodule(name).modules()}
    around = {module for name, module in network.named_modules() if any(f.startswith(f"{name}.") for f in found)}
    by_class: dict[type[nn.Module], list[str]] = {}
    for name, module in network.named_modules():
        if name and calls.counts[module] and module not in inside | around:
            is_own = not type(module).__module__.startswith("torch.") and holds_layer(module)
            if is_own or module in calls.firing:
                by_class.setdefault(type(module), []).append(name)
    for cls, names in by_class.items():
        if len(names) > 2 * len(found):
            log.warning(
                "%s has %d blocks where %s is repeated %d times: if those are its blocks, say at=%s",
                *(type(network).__name__, len(found), cls.__name__, len(names), names[:-1]),
            )


def _stages(network: nn.Module, calls: Calls | None) -> list[str]:
    """The stages a network names, or else the containers of its blocks, or else an even split of these.

    A container that is not called itself, such as a `ModuleList`, stands for the last of its blocks.
    """
    if own := _has_places(network):
        return own.stages()
    blocks = _blocks(network, calls)
    by_container: dict[str, list[str]] = {}
    for name in blocks:
        by_container.setdefault(name.rpartition(".")[0], []).append(name)
    containers = [name for name in by_container if name]
    if len(containers) < 2:
        number = min(4 if len(blocks) >= 8 else 3, len(blocks))
        return [blocks[len(blocks) * part // number - 1] for part in range(1, number + 1)]

    def is_called(name: str) -> bool:
        module = network.get_submodule(name)
        return not isinstance(module, nn.ModuleList) if calls is None else bool(calls.counts[module])

    return [name if is_called(name) else by_container[name][-1] for name in containers]


@dataclass(frozen=True)
class _Guess:
    """Finds what may be blocks.

    Args:
        firing: modules that were seen to fire; a module of a known class need not be.
        weights_suffice: whether a block need not fire.
    """

    firing: frozenset[nn.Module]
    weights_suffice: bool = False

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
        """Whether it holds weights and a neuron, or fires by itself."""
        if self.weights_suffice:
            return holds_layer(module) and any(module.children())
        inner = [m for m in module.modules() if m is not module]
        return holds_layer(module) and (module in self.firing or any(map(self._fires, inner)))

    def _fires(self, module: nn.Module) -> bool:
        return is_known_neuron(module) or is_activation(module) or module in self.firing


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)
