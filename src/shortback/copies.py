"""Copies of networks, including those that `copy.deepcopy` alone refuses.

A tensor that a graph computed cannot be deep-copied, and some modules keep one: the weight of a layer with
`torch.nn.utils.weight_norm` or with pruning, which is recomputed in every call; a membrane after training; or features
in a list.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def deep_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy, in which tensors that a graph computed are detached."""
    return copy.deepcopy(network, {id(tensor): tensor.detach().clone() for tensor in _computed(network)})


def shared_copy(network: nn.Module) -> nn.Module:
    """Return a copy that shares weights and buffers; attributes that a forward assigns change only the copy."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers(), *_computed(network))}
    return copy.deepcopy(network, tensors)


def tensors_kept(module: nn.Module) -> Iterator[Tensor]:
    """The tensors that a module itself keeps: parameters, buffers, those in attributes, and SpikingJelly's memories."""
    yield from tensors_in({name: value for name, value in vars(module).items() if name != "_modules"})


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings, which may hold each other; a container counts once."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | tuple | list) and id(value) not in seen:
            seen.add(id(value))
            waiting += reversed(list(value.values() if isinstance(value, Mapping) else value))


def _computed(network: nn.Module) -> Iterator[Tensor]:
    return (tensor for module in network.modules() for tensor in tensors_kept(module) if not tensor.is_leaf)
