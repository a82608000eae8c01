"""The layers of a network, in the order in which a forward uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from shortback.health.graph import Use, first_uses
from shortback.inspection.hooks import hooked

THE_NETWORK = "(the network)"  # the name of what is no module within it, but the network itself


@dataclass(frozen=True)
class Layer:
    """Weights that belong together: those of a module's own, or one of a list of parameters.

    Attributes:
        name: of the module, or of the parameter.
        module: that has them.
        weights: parameters of two or more dimensions that are trained.
    """

    name: str
    module: nn.Module
    weights: list[nn.Parameter]


def layers_of(network: nn.Module) -> list[Layer]:
    """Every module that has weights of its own, and every weight of an `nn.ParameterList` or `nn.ParameterDict`."""
    found = []
    for name, module in network.named_modules():
        own = {n: p for n, p in module.named_parameters(recurse=False) if p.ndim >= 2 and p.requires_grad}
        if isinstance(module, nn.ParameterList | nn.ParameterDict):
            found += [Layer(f"{name}.{key}" if name else key, module, [weight]) for key, weight in own.items()]
        elif own:
            found.append(Layer(name or THE_NETWORK, module, list(own.values())))
    return found


@contextmanager
def order_of_calls(layers: Sequence[Layer]) -> Iterator[list[str]]:
    """The names of the layers as their modules are called."""
    order: list[str] = []

    def noting(name: str) -> Callable[..., None]:
        return lambda module, inputs: order.append(name)

    with hooked(((layer.module, noting(layer.name)) for layer in layers), before=True):
        yield order


def in_order(layers: Sequence[Layer], called: Sequence[str], outputs: Sequence[Tensor]) -> list[Layer]:
    """The layers in the order in which they were first called.

    Where a call does not tell when weights are used, the graph of the outputs does: of a module that is not called
    itself, as the output projection of `nn.MultiheadAttention`, and of one that holds other layers. What no output
    leads back to comes last.
    """
    by_name = {layer.name: layer for layer in layers}
    modules = {layer.module for layer in layers}
    order = [by_name[name] for name in dict.fromkeys(called) if not _holds_others(by_name[name].module, modules)]
    rest = [layer for layer in layers if layer not in order]
    if not rest:
        return order
    uses = _uses(layers, outputs)
    for layer in sorted((each for each in rest if each.name in uses), key=lambda each: uses[each.name], reverse=True):
        later = (i for i, other in enumerate(order) if other.name in uses and uses[other.name] < uses[layer.name])
        order.insert(next(later, len(order)), layer)
    return order + [layer for layer in rest if layer.name not in uses]


def _uses(layers: Sequence[Layer], outputs: Sequence[Tensor]) -> dict[str, Use]:
    """By name, how early the first of a layer's weights is used, where an output leads back to one."""
    found: dict[str, Use] = {}
    names = [layer.name for layer in layers for _ in layer.weights]
    weights = [weight for layer in layers for weight in layer.weights]
    for name, use in zip(names, first_uses(outputs, weights), strict=True):
        if use is not None:
            found[name] = max(found.get(name, use), use)
    return found


def _holds_others(module: nn.Module, modules: set[nn.Module]) -> bool:
    return any(part in modules for part in module.modules() if part is not module)
