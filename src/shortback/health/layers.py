"""The layers of a network, in the order in which a forward uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from shortback.health.graph import Use, first_uses
from shortback.inspection.hooks import hooked

THE_NETWORK = "(the network)"  # the name shown for the network itself, whose module name is empty


@dataclass(frozen=True)
class Layer:
    """The weights that a module owns directly, or a single weight of a parameter list or dict.

    Attributes:
        name: the name of the module, or of the weight in a parameter list or dict.
        module: the module that owns the weights.
        weights: parameters of two or more dimensions that require a gradient.
    """

    name: str
    module: nn.Module
    weights: list[nn.Parameter]


def layers_of(network: nn.Module) -> list[Layer]:
    """One layer for each module with weights of its own, and for each weight of a parameter list or dict."""
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
    """Collect the names of the layers in the order in which their modules are called inside the block."""
    order: list[str] = []

    def noting(name: str) -> Callable[..., None]:
        return lambda module, inputs: order.append(name)

    with hooked(((layer.module, noting(layer.name)) for layer in layers), before=True):
        yield order


def in_order(layers: Sequence[Layer], called: Sequence[str], outputs: Sequence[Tensor]) -> list[Layer]:
    """Sort the layers by their first calls.

    The autograd graph of the outputs gives the order where calls do not: for a module that is never called itself, such
    as the output projection of `nn.MultiheadAttention`, and for a module that holds other layers. Those on which
    no output depends come last.
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
    """By name, how early a layer's weights are first used; layers on which no output depends are left out."""
    found: dict[str, Use] = {}
    names = [layer.name for layer in layers for _ in layer.weights]
    weights = [weight for layer in layers for weight in layer.weights]
    for name, use in zip(names, first_uses(outputs, weights), strict=True):
        if use is not None:
            found[name] = max(found.get(name, use), use)
    return found


def _holds_others(module: nn.Module, modules: set[nn.Module]) -> bool:
    return any(part in modules for part in module.modules() if part is not module)
