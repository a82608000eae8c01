"""Modules in ordinary lists, tuples and dicts of a network, where `nn.Module` does not see them.

A list beside the registered modules, `self.chain = [self.conv, self.act]`, refers to the same activations, which are
replaced there too. Activations that are only in such a container are left unchanged and reported, since they may belong
to a teacher or a table of functions that is not meant to spike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from shortback.spiking.activations import activation_function, is_activation

_MODULE_ATTRIBUTES = frozenset(nn.Module().__dict__)


def replace_modules(network: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Replace modules of a network under every name that they have, also in the plain attributes of other modules."""
    for parent in list(network.modules()):
        if parent in replacements:
            continue
        for name, child in parent._modules.items():
            if child is not None and child in replacements:
                parent._modules[name] = replacements[child]
    replace_in_attributes(network, replacements)


def replace_in_attributes(network: nn.Module, neurons: Mapping[nn.Module, nn.Module]) -> list[str]:
    """Replace activations with neurons in all modules' plain attributes.

    Args:
        network: a network whose registered activations are already replaced.
        neurons: maps each activation to the neuron that replaced it.

    Returns:
        One line for each activation that was left because it is not registered or is a function.
    """
    search = _Search(network, neurons)
    for name, module in network.named_modules():
        for attribute, value in list(vars(module).items()):
            if attribute not in _MODULE_ATTRIBUTES:
                new = search.replaced(value, f"{name}.{attribute}" if name else attribute)
                if new is not value:
                    vars(module)[attribute] = new
    return search.found


class _Search:
    """Walks through values, and collects in `found` the activations that cannot be replaced."""

    def __init__(self, network: nn.Module, neurons: Mapping[nn.Module, nn.Module]) -> None:
        self.neurons = neurons
        self.registered = set(network.modules())
        self.found: list[str] = []
        self._seen: set[int] = set()

    def replaced(self, value: Any, where: str, *, is_held: bool = False) -> Any:
        """Return the replacement of a value: the value itself, except for activations and tuples that hold them."""
        if isinstance(value, nn.Module):
            if value not in self.neurons and value not in self.registered and any(map(is_activation, value.modules())):
                self.found.append(f"{where} is a {type(value).__name__} that is not registered")
            return self.neurons.get(value, value)
        if isinstance(value, list | dict | tuple):
            return self._replaced_in(value, where)
        if is_held and (function := activation_function(value)):  # outside containers, their calls are searched for
            self.found.append(f"{where} is the function {function}")
        return value

    def _replaced_in(self, container: Any, where: str) -> Any:
        if id(container) in self._seen:
            return container
        pairs = list(container.items() if isinstance(container, dict) else enumerate(container))
        if isinstance(container, tuple):
            new = [self.replaced(value, f"{where}[{key}]", is_held=True) for key, value in pairs]
            if all(a is b for a, b in zip(new, container, strict=True)):
                return container
            return type(container)(*new) if hasattr(container, "_fields") else tuple(new)
        self._seen.add(id(container))
        for key, value in pairs:
            new = self.replaced(value, f"{where}[{key!r}]", is_held=True)
            if new is not value:
                container[key] = new
        return container
