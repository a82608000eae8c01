"""Run a network for a look at it, and leave it as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shortback.inspection.plain_state import PlainState, parts_of


@contextmanager
def undisturbed(model: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Put back the modes, the buffers, what modules remember and the random state when the block ends, however it ends.

    What modules remember are attributes that are tensors, numbers or text, and built-in containers of these. Where the
    network made layers of its own in the block, these stay, and so does what is no tensor, which may say so. A norm
    that took its shape in the block has fresh statistics afterwards.

    Within it inference mode is off, whose tensors cannot be watched.

    Args:
        model: what may be changed in the block.
        inputs: tensors whose devices' generators are kept too.
    """
    # A tensor is put back by reference, so that a state which is part of a graph stays part of it.
    tables = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    plain, parts = [PlainState(module) for module in model.modules()], parts_of(model)
    lazy = [module for module in model.modules() if any(is_lazy(b) for b in module.buffers(recurse=False))]
    buffers = [(b, b.clone()) for b in model.buffers() if not (b.requires_grad or is_lazy(b))]
    devices = {t.device for t in (*inputs, *model.parameters()) if t.device.type == "cuda"}
    with torch.inference_mode(False), torch.random.fork_rng(devices=list(devices)), modes_kept(model):
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
                    buffer.data.copy_(before)  # its version stays, by which a graph that holds it would be refused
            for module in lazy:
                if isinstance(module, nn.modules.batchnorm._NormBase) and not any(map(is_lazy, module.buffers())):
                    module.reset_running_stats()


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every module back into its own mode when the block ends: a network may train beside norms that are frozen."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy, of a network too whose neurons remember tensors of a graph, which PyTorch does not copy.

    In the copy these are values alone.
    """
    remembered = [t for module in model.modules() for table in _tables(module) for t in _tensors_in(table)]
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in remembered if not t.is_leaf})


def remembered_graph(model: nn.Module) -> dict[Any, str]:
    """The nodes of a graph whose results modules remember, and the names of the modules."""
    named = ((name, t) for name, m in model.named_modules() for table in _tables(m) for t in _tensors_in(dict(table)))
    return {tensor.grad_fn: name for name, tensor in named if tensor.grad_fn is not None}


def first_in_graph(result: Tensor, nodes: Mapping[Any, str]) -> str | None:
    """The name of a node that the gradient of a result leads to; None if it leads to none of them."""
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


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(each)


def in_training(net: nn.Module) -> nn.Module:
    """The network in training mode; in one that is there already, what was frozen in `eval()` stays so."""
    return net if net.training else net.train()


def _tables(module: nn.Module) -> list[dict[str, Any]]:
    """Where a module has its state: its buffers, plain attributes, and what SpikingJelly calls memories."""
    memories = module.__dict__.get("_memories")
    return [module._buffers, module.__dict__, *([memories] if isinstance(memories, dict) else [])]


def _put_back(buffers: dict[str, Any], before: dict[str, Any]) -> None:
    """Undo every change from a tensor, or to one."""
    for key, value in list(buffers.items()):
        was = before.get(key)
        if value is not was and (isinstance(value, Tensor) or isinstance(was, Tensor)):
            if key in before:
                buffers[key] = was
            else:
                del buffers[key]
