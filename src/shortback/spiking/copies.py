"""Copies of networks, of those too that PyTorch does not copy by itself.

A tensor that a graph computed cannot be copied deeply, and some modules keep one: the weight of a layer with
`torch.nn.utils.weight_norm` or with pruning, which is computed anew in every call.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import Tensor, nn


def deep_copy(network: nn.Module) -> nn.Module:
    """A deep copy, in which tensors that a graph computed are values alone."""
    return copy.deepcopy(network, {id(tensor): tensor.detach().clone() for tensor in _computed(network)})


def shared_copy(network: nn.Module) -> nn.Module:
    """A copy that shares the weights and buffers, and takes for itself what a forward assigns to attributes."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers(), *_computed(network))}
    return copy.deepcopy(network, tensors)


def _computed(network: nn.Module) -> Iterator[Tensor]:
    for module in network.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf)
