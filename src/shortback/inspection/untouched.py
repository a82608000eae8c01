"""Run a network to inspect it, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shortback.inspection.generators import generators_kept
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


def in_training(net: nn.Module) -> nn.Module:
    """Put a network into training mode; if it is already, modules frozen in `eval()` stay frozen."""
    return net if net.training else net.train()


def _put_back(buffers: dict[str, Any], before: dict[str, Any]) -> None:
    """Undo every replacement of or by a tensor."""
    for key, value in list(buffers.items()):
        was = before.get(key)
        if value is not was and (isinstance(value, Tensor) or isinstance(was, Tensor)):
            if key in before:
                buffers[key] = was
            else:
                del buffers[key]
