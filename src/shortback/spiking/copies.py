"""Copies of networks, including those that `copy.deepcopy` alone refuses.

A tensor that a graph computed cannot be deep-copied, and some modules store one: the weight of a layer with
`torch.nn.utils.weight_norm` or with pruning, which is recomputed in every call.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import Tensor, nn


def deep_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy, in which tensors that a graph computed are detached."""
    return copy.deepcopy(network, {id(tensor): tensor.detach().clone() for tensor in _computed(network)})


def shared_copy(network: nn.Module) -> nn.Module:
    """Return a copy that shares weights and buffers; attributes that a forward assigns change only the copy."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers(), *_computed(network))}
    return copy.deepcopy(network, tensors)


def _computed(network: nn.Module) -> Iterator[Tensor]:
    for module in network.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf)
