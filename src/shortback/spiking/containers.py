"""Activations that a network reaches through an ordinary list, tuple or dict, where `nn.Module` does not see them.

A list beside the registered modules, `self.chain = [self.conv, self.act]`, holds the same activations once more: they
are replaced there too. What stands in such a container alone stays as it is, since it may be a teacher or a table of
functions that is not meant to spike, and the caller is told of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from shortback.spiking.activations import activation_function, is_activation

_OF_MODULES = frozenset(nn.Module().__dict__)


def replace_in_attributes(network: nn.Module, neurons: Mapping[nn.Module, nn.Module]) -> list[str]:
    """Put neurons in the place of activations in the plain attributes of all modules.

    Args:
        network: whose registered activations were replaced already.
        neurons: by activation, the one that took its place.

    Returns:
        Where activations stay that are registered nowhere, or are functions, a line for each.
    """
    search = _Search(network, neurons)
    for name, module in network.named_modules():
        for attribute, value in list(vars(module).items()):
            if attribute not in _OF_MODULES:
                new = search.replaced(value, f"{name}.{attribute}" if name else attribute)
                if new is not value:
                    vars(module)[attribute] = new
    return search.found


class _Search:
    """Goes through values, and collects in `found` what cannot be replaced."""

    def __init__(self, network: nn.Module, neurons: Mapping[nn.Module, nn.Module]) -> None:
        self.neurons = neurons
        self.registered = set(network.modules())
        self.found: list[str] = []
        self._seen: set[int] = set()

    def replaced(self, value: Any, where: str, *, is_held: bool = False) -> Any:
        """What stands in the place of a value: itself, but for activations, and for tuples that hold them."""
        if isinstance(value, nn.Module):
            if value not in self.neurons and value not in self.registered and any(map(is_activation, value.modules())):
                self.found.append(f"{where} is a {type(value).__name__} that is not registered")
            return self.neurons.get(value, value)
        if isinstance(value, list | dict | tuple):
            return self._replaced_in(value, where)
        if is_held and (function := activation_function(value)):  # others are looked for where they are called
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
