"""Find the modules that branches tap, from the argument `at` of `attach`."""

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
from shortback.words import quantity

log = logging.getLogger("shortback")

_MAKE_MODULES = "put each neuron, or conv, norm and neuron together, into an nn.Module of its own"


class HasPlaces(Protocol):
    """A network that names its blocks and stages itself."""

    def blocks(self) -> list[str]: ...
    def stages(self) -> list[str]: ...


def find_places(
    model: nn.Module, at: str | Sequence[str], *, run: Callable[[], Calls] | None = None
) -> dict[str, nn.Module]:
    """Find the modules to tap, by name: blocks and stages in call order, others in module order.

    Args:
        model: the network; names are those inside a `SpikingNetwork`.
        at: `"blocks"` or `"stages"` (each but the last, which the main output follows), or names of modules.
        run: runs the network to see what its modules do; called only if the network does not name its own blocks.

    Raises:
        ValueError: a name is no module (the nearest names are listed), a module is named twice, or there is nothing
            to tap.
    """
    network = model.network if isinstance(model, SpikingNetwork) else model
    modules = {name: module for name, module in network.named_modules() if name}
    if at in ("blocks", "stages"):
        calls = None if run is None or _has_places(network) else run()
        places = (_blocks if at == "blocks" else _stages)(network, calls)
        if len(places) < 2:
            raise UserError(
                f"at={at!r}: {type(network).__name__} has {quantity(len(places), at[:-1])}, and a branch goes after "
                f"each but the last; {_what_instead(network, calls)}"
            )
        return {name: modules[name] for name in places[:-1]}
    names = [at] if isinstance(at, str) else list(at)
    if not names:
        raise UserError("at=[]: name at least one module, or write 'blocks' or 'stages'")
    for name in names:
        if name not in modules and (module := _registered_as(network, name)) is not None:
            modules[name] = module  # another name of a shared module
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
    """Return the network if `blocks` and `stages` are methods of it, not modules."""
    has = all(inspect.ismethod(getattr(network, name, None)) for name in ("blocks", "stages"))
    return cast("HasPlaces", network) if has else None


def warn_of_currents(model: nn.Module, places: Iterable[str], calls: Calls) -> None:
    """Warn about named places in a network whose neurons are lines of its `forward`, so that no module fires."""
    if calls.spikes_inside and not _has_units(model, calls):
        log.warning(
            "no module of %s returns spikes, so the branches at %s tap currents: to tap spikes, %s",
            *(type(model).__name__, ", ".join(places), _MAKE_MODULES),
        )


def _has_units(network: nn.Module, calls: Calls) -> bool:
    """Whether any module fires, is a known neuron, or is an activation that is called."""
    return bool(calls.firing) or any(is_activation(m) and calls.counts[m] for m in network.modules())


def _what_instead(network: nn.Module, calls: Calls | None) -> str:
    """Advice for a network without blocks, for an error message."""
    by_name = f"name the modules instead, e.g. at={_examples(network, calls)}{_hint_of_steps(network, calls)}"
    if calls is None or _has_units(network, calls):
        return by_name
    if calls.silent:
        names = [name for name, module in network.named_modules() if module in calls.silent]
        return (
            f"no neuron fired: {', '.join(names[:3])} returned only zeros, so neurons cannot be told from other "
            f"modules: lower their threshold, or name them, e.g. at={names[:-1] or names}"
        )
    of_no_neurons = "" if calls.spikes_inside else f". In a network without neurons {by_name}"
    return f"no module of {type(network).__name__} returns spikes: {_MAKE_MODULES}{of_no_neurons}"


def _examples(network: nn.Module, calls: Calls | None) -> list[str]:
    """Up to three modules to tap: neurons called once, else layers called once except the last (the output)."""
    names = {module: name for name, module in network.named_modules() if name}
    if calls is None:
        return list(names.values())[:3]
    once = [name for module, name in names.items() if calls.counts[module] == 1]
    firing = [name for module, name in names.items() if name in once and module in calls.firing]
    layers = [name for module, name in names.items() if name in once and holds_layer(module)]
    several = [name for module, name in names.items() if calls.counts[module] > 1 and holds_layer(module)]
    return (firing or layers[:-1] or once or several[:-1])[:3]


def _hint_of_steps(network: nn.Module, calls: Calls | None) -> str:
    """Advice about neurons that are never called, as when `step()` runs them."""
    names = (
        [] if calls is None else [n for n, m in network.named_modules() if is_known_neuron(m) and not calls.counts[m]]
    )
    return (
        f". {', '.join(names[:3])}: never called, and neuron.step(x, state) runs no hooks; to tap spikes, wrap it in a "
        "module of your own, with def forward(self, x, state): return self.neuron.step(x, state)"
        if names
        else ""
    )


def _blocks(network: nn.Module, calls: Calls | None) -> list[str]:
    """The blocks that a network names itself, or else the modules that look most like blocks.

    The first of these guesses with two or more modules is taken: the network's own modules that a container repeats,
    such as `layer1.0`; the smallest modules that hold both weights and a neuron (or activation), or each neuron of one
    long sequence; all neurons; where one neuron serves several layers, these layers; where nothing fires, repeated
    modules with weights. If the blocks are neurons with weights, such as recurrent ones, the other neurons beside them
    are blocks too. Blocks are in the order in which they first return.
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
    if calls is not None and len(found) >= 2:  # find_places refuses fewer
        order = {module: index for index, module in enumerate(calls.counts)}
        found = _with_other_neurons(network, found, calls)
        found.sort(key=lambda name: order[network.get_submodule(name)])
        _warn_of_few(network, found, calls)
    return found


def _with_other_neurons(network: nn.Module, found: list[str], calls: Calls) -> list[str]:
    """If all blocks are neurons (with weights, such as recurrent ones), add the other neurons beside them.

    Only neurons called as often as a block are added: a neuron that serves several layers is called more often.
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
    """Warn if a class outside the blocks is repeated more than twice as often as there are blocks."""
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
                "%s has %d blocks, but %s is repeated %d times: if those are the blocks, use at=%s",
                *(type(network).__name__, len(found), cls.__name__, len(names), names[:-1]),
            )


def _stages(network: nn.Module, calls: Calls | None) -> list[str]:
    """The stages that a network names itself, or else the containers of its blocks, or else an even split of these.

    A container that is not called itself, such as a `ModuleList`, is replaced by the last of its blocks.
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
    """Finds modules that may be blocks.

    Args:
        firing: modules that were seen to fire; known neurons and activations need not be among them.
        weights_suffice: whether a block may hold weights alone, without a neuron.
    """

    firing: frozenset[nn.Module]
    weights_suffice: bool = False

    def repeated(self, network: nn.Module, prefix: str = "") -> list[str]:
        """Modules in a container that are not containers themselves and hold fewer than two such blocks."""
        found: list[str] = []
        for name, child in network.named_children():
            composite = self._is_composite(child)
            inner = self.repeated(child, f"{prefix}{name}.") if composite else []
            is_block = _is_container(network) and not _is_container(child) and composite
            found += [f"{prefix}{name}"] if is_block and len(inner) < 2 else inner
        return found

    def smallest(self, network: nn.Module) -> list[str]:
        """The smallest modules that hold weights and a neuron; for a sequence of several neurons, these neurons."""
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
        """Whether a module has weights, and holds a neuron or fires; with `weights_suffice`, just weights and parts."""
        if self.weights_suffice:
            return holds_layer(module) and any(module.children())
        inner = [m for m in module.modules() if m is not module]
        return holds_layer(module) and (module in self.firing or any(map(self._fires, inner)))

    def _fires(self, module: nn.Module) -> bool:
        return is_known_neuron(module) or is_activation(module) or module in self.firing


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)
