"""Find products that a network computes in functions rather than layers, as in attention, where no hook sees them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shortback.choices import Backend
from shortback.export.counting import has_weights, is_counted
from shortback.neurons import SpikingNeuron

_PRODUCTS = frozenset(
    {
        *("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addbmm", "baddbmm"),
        *("einsum", "tensordot"),
        *("linear", "bilinear", "conv1d", "conv2d", "conv3d", "scaled_dot_product_attention"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "multi_head_attention_forward"),
    }
)


@torch.no_grad()
def products_in_functions(network: nn.Module, x: Tensor) -> list[str]:
    """Names of the functions that multiply in a forward pass outside of modules with weights.

    Neurons of this package run with the reference backend meanwhile: the compiler would trace the function mode too.
    """
    found, handles = _Products(), []
    backends: dict[SpikingNeuron, Backend] = {
        module: module.backend for module in network.modules() if isinstance(module, SpikingNeuron)
    }
    for neuron in backends:
        neuron.backend = "reference"
    for module in network.modules():
        if (is_counted(module) or has_weights(module)) and not any(True for _ in module.children()):
            handles += [module.register_forward_pre_hook(found.enter), module.register_forward_hook(found.leave)]
    try:
        with found:
            network(x)
    finally:
        for handle in handles:
            handle.remove()
        for neuron, backend in backends.items():
            neuron.backend = backend
    return [f"{name} (a function)" for name in found.names]


class _Products(TorchFunctionMode):
    """Notes the names of the product functions that are called outside of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, None] = {}
        self._inside = 0

    def enter(self, module: nn.Module, args: Any) -> None:
        self._inside += 1

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._inside -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _PRODUCTS and not self._inside:
            self.names[name.strip("_")] = None
        return func(*args, **(kwargs or {}))
