"""Restore what modules keep in plain attributes: numbers, text, tensors, and lists, tuples, dicts and sets of them.

Only containers of Python and named tuples are searched. Any other object is left alone, since others may share what it
holds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from shortback.torch_private import version_of

_ATOMS = (Tensor, bool, int, float, complex, str, bytes, type(None))
_FIXED = (tuple, frozenset)
_GROWING = (list, dict, OrderedDict, defaultdict, Counter, set, deque)
_MODULE_ATTRIBUTES = frozenset(
    nn.Module().__dict__
)  # parameters, buffers, hooks; `training`, which `modes_kept` restores


class PlainState:
    """A snapshot of the plain attributes of a module, including the contents of containers.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attributes = {name: value for name, value in module.__dict__.items() if name not in _MODULE_ATTRIBUTES}
        self.undo: list[Callable[[], None]] = []
        seen: set[int] = set()
        for value in self.attributes.values():
            self._keep(value, seen)

    def put_back(self, *, tensors_alone: bool = False) -> None:
        """Undo all changes since the snapshot.

        Args:
            tensors_alone: restore only attributes that are tensors.
        """
        now, plain = self.module.__dict__, _is_tensor if tensors_alone else _is_plain
        for name in [name for name in now if name not in _MODULE_ATTRIBUTES and name not in self.attributes]:
            if plain(now[name]):
                del now[name]
        for name, was in self.attributes.items():
            if name not in now and tensors_alone:
                continue
            value = now.get(name)
            if (name not in now or value is not was) and (plain(was) or plain(value)):
                now[name] = was
        for undo in () if tensors_alone else self.undo:
            undo()

    def _keep(self, value: Any, seen: set[int]) -> None:
        """Record the values of a tensor, or the contents of a container and of everything in it."""
        if id(value) in seen:
            return
        if isinstance(value, Tensor):
            if not value.is_inference() and not value.requires_grad:
                seen.add(id(value))
                self.undo.append(_undo_in_place(value))
        elif _is_container(value):
            seen.add(id(value))
            if type(value) in _GROWING:
                self.undo.append(_undo_contents(value))
            for each in value.values() if isinstance(value, dict) else value:
                self._keep(each, seen)


def _undo_contents(container: Any) -> Callable[[], None]:
    held = container.copy()

    def undo() -> None:
        if not _holds_the_same(container, held):
            container.clear()
            # `Counter.update` adds up, to what is 0 after `clear`
            container.update(held) if isinstance(container, dict | set) else container.extend(held)

    return undo


def _holds_the_same(container: Any, held: Any) -> bool:
    """Whether both hold the very same objects; tensors must not be compared by their values."""
    if len(container) != len(held):
        return False
    if isinstance(container, dict):
        pairs = zip(container.items(), held.items(), strict=True)
        return all(key is k and value is v for (key, value), (k, v) in pairs)
    return container == held if isinstance(container, set) else all(map(lambda a, b: a is b, container, held))


def _undo_in_place(tensor: Tensor) -> Callable[[], None]:
    version, before = version_of(tensor), tensor.detach().clone()

    def undo() -> None:
        if version_of(tensor) != version and tensor.shape == before.shape:
            tensor.data.copy_(before)  # keeps the version, so that a graph that saved the tensor stays valid

    return undo


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _ATOMS) or _is_container(value)


def _is_container(value: Any) -> bool:
    """Whether a value is a built-in container or a named tuple."""
    return isinstance(value, _FIXED) or type(value) in _GROWING


def parts_of(model: nn.Module) -> list[object]:
    """Identities of the modules of a network, with their classes, and of its parameters.

    They change if a network creates layers in its first forward pass, as do the plain attributes that record this.
    """
    modules = [(id(module), type(module)) for module in model.modules()]
    return [*modules, *map(id, model.parameters())]
