"""Run a network to inspect it, and leave it as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shortback.inspection.generators import generators_kept
from shortback.inspection.layout import tensors_in
from shortback.inspection.plain_state import PlainState, parts_of


@contextmanager
def undisturbed(model: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Restore modes, buffers, what modules remember and the random state when the block ends, however it ends.

    What modules remember are attributes that are tensors, numbers or text, and built-in containers of these. If the
    network creates layers in the block, these stay, and so do all attributes but tensors, since they may record that. A
    lazy norm that is initialised in the block has fresh statistics afterwards.

    Inference mode is off inside the block, since changes of its tensors cannot be tracked.

    Args:
        model: the network that the block may change.
        inputs: tensors whose devices' generators are restored too.
    """
    # Tensors are restored by reference, so that a state that is part of a graph stays part of it.
    tables = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    plain, parts = [PlainState(module) for module in model.modules()], parts_of(model)
    lazy = [module for module in model.modules() if any(is_lazy(b) for b in module.buffers(recurse=False))]
    buffers = [(b, b.clone()) for b in model.buffers() if not (b.requires_grad or is_lazy(b))]
    with torch.inference_mode(False), generators_kept(*inputs, *model.parameters()), modes_kept(model):
        try:
            yield
        finally:
            for table, before in tables:
                _put_back(table, before)
            has_new_parts = parts != parts_of(model)
            for state in plain:
                state.put_back(tensors_alone=has_new_parts)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.data.copy_(before)  # keeps the version, so that a graph that saved it stays valid
            for module in lazy:
                if isinstance(module, nn.modules.batchnorm._NormBase) and not any(map(is_lazy, module.buffers())):
                    module.reset_running_stats()


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore the mode of each module when the block ends: in a network in training, norms may be frozen."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy of a network, even if its neurons remember tensors of a graph, which PyTorch refuses to copy.

    These are detached in the copy.
    """
    remembered = [t for module in model.modules() for table in _tables(module) for t in tensors_in(table)]
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in remembered if not t.is_leaf})


def remembered_graph(model: nn.Module) -> dict[Any, str]:
    """The graph nodes of the tensors that modules remember, with the names of the modules."""
    named = ((name, t) for name, m in model.named_modules() for table in _tables(m) for t in tensors_in(dict(table)))
    return {tensor.grad_fn: name for name, tensor in named if tensor.grad_fn is not None}


def first_in_graph(result: Tensor, nodes: Mapping[Any, str]) -> str | None:
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


def in_training(net: nn.Module) -> nn.Module:
    """Put a network into training mode; if it is already, modules frozen in `eval()` stay frozen."""
    return net if net.training else net.train()


def _tables(module: nn.Module) -> list[dict[str, Any]]:
    """The dicts that hold a module's state: buffers, attributes, and what SpikingJelly calls memories."""
    memories = module.__dict__.get("_memories")
    return [module._buffers, module.__dict__, *([memories] if isinstance(memories, dict) else [])]


def _put_back(buffers: dict[str, Any], before: dict[str, Any]) -> None:
    """Undo every replacement of or by a tensor."""
    for key, value in list(buffers.items()):
        was = before.get(key)
        if value is not was and (isinstance(value, Tensor) or isinstance(was, Tensor)):
            if key in before:
                buffers[key] = was
            else:
                del buffers[key]
