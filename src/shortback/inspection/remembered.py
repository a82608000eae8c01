"""Find out whether a result's gradient leads back into a graph that modules remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from shortback.copies import tensors_kept


def remembered_graph(model: nn.Module) -> dict[Any, str]:
    """The graph nodes of the tensors that modules remember, with the names of the modules."""
    named = ((name, tensor) for name, module in model.named_modules() for tensor in tensors_kept(module))
    return {tensor.grad_fn: name for name, tensor in named if tensor.grad_fn is not None}


def reached_in_graph(result: Tensor, nodes: Mapping[Any, str]) -> str | None:
    """The name of one of the nodes that the gradient of a result leads to; None if it leads to none."""
    waiting, seen = [result.grad_fn] if nodes else [], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node in nodes:
            return nodes[node]
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return None
