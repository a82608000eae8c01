"""Which layers feed which neurons, by the autograd graph of a forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from shortback.copies import tensors_in
from shortback.errors import UserError
from shortback.inspection.generators import generators_kept
from shortback.inspection.hooks import hooked
from shortback.inspection.reset import reset_states
from shortback.torch_private import base_of

Layers = tuple[nn.Module, ...]


@dataclass(frozen=True)
class Feeds:
    """The nearest modules that the inputs of layers and neurons are made of.

    Attributes:
        by_call: for each call of a neuron, the layers whose outputs its input is made of, with no other layer and no
            neuron in between, in the order given. Recurrent layers, whose inputs are made of this neuron's own spikes
            alone, are left out if others remain. Calls that share a layer are given the layers of both, as where
            something is added from the second step on. A neuron that holds layers is fed by the last of these.
        sources: for each layer, the layers and neurons that its inputs were made of in all its calls.
    """

    by_call: dict[nn.Module, list[Layers]]
    sources: dict[nn.Module, set[nn.Module]]

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, *, layers: Sequence[nn.Module], neurons: Collection[nn.Module]) -> Feeds:
        """Run a network once with gradients, as it is, and keep no activations for a backward pass.

        Args:
            model: the network.
            x: its input.
            layers: modules with weights.
            neurons: modules that fire, which may hold layers, or be layers themselves.

        Raises:
            ValueError: a part of the network is checkpointed with `use_reentrant=True`, which hides its layers.
        """
        trace = _Trace()
        modules = dict.fromkeys([*layers, *neurons])
        before, after = [(m, trace.note_inputs) for m in modules], [(m, trace.note_outputs) for m in modules]
        reset_states(model)
        x = x.clone().requires_grad_() if x.is_floating_point() else x  # for layers that are frozen
        discard = saved_tensors_hooks(lambda tensor: None, lambda _: x)
        hooks = hooked(before, before=True, with_kwargs=True), hooked(after, with_kwargs=True)
        with torch.enable_grad(), discard, hooks[0], hooks[1], generators_kept(x):
            model(x.clone())  # a clone, which may be changed in place
        sources = {layer: set().union(*trace.inputs[layer]) for layer in layers}
        by_call = {}
        for neuron in neurons:
            own = {*neuron.modules()}
            inner = [layer for layer in layers if layer in own and sources[layer] != {neuron}]
            if inner:
                last = tuple(layer for layer in inner if not any(layer in sources[other] for other in inner))
                by_call[neuron] = [last for _ in trace.inputs[neuron]]
            else:
                feeding = [_feeding(neuron, seen, sources) for seen in trace.inputs[neuron]]
                by_call[neuron] = _merged(feeding, order=layers)
        return cls(by_call, sources)

    def entries(self, layers: Layers) -> set[nn.Module]:
        """Of the given layers and all layers before them, those fed by neurons or by the network's input."""
        found, waiting, seen = set(), list(layers), set()
        while waiting:
            layer = waiting.pop()
            if layer in seen:
                continue
            seen.add(layer)
            before = [source for source in self.sources[layer] if source in self.sources]
            waiting += before
            if len(before) < len(self.sources[layer]) or not before:
                found.add(layer)
        return found


class _Trace:
    """The nodes of the graph that modules made, and what the inputs of each call of a module were made of."""

    def __init__(self) -> None:
        self.inputs: dict[nn.Module, list[list[nn.Module]]] = defaultdict(list)
        self._made: dict[Any, nn.Module] = {}  # by node; keeps the nodes alive, which compare by identity

    def note_inputs(self, module: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any]) -> None:
        self.inputs[module].append(self._nearest([*tensors_in((inputs, by_keyword))]))

    def note_outputs(self, module: nn.Module, inputs: Any, by_keyword: Any, output: Any) -> None:
        for tensor in tensors_in(output):
            # A change in place gives a view another node, which leads back to that of its base.
            for each in (tensor, base_of(tensor)):
                if each is not None and each.grad_fn is not None:
                    self._made[each.grad_fn] = module

    def _nearest(self, tensors: list[Tensor]) -> list[nn.Module]:
        found: dict[nn.Module, None] = {}
        waiting, seen = [tensor.grad_fn for tensor in tensors], set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in self._made:
                found[self._made[node]] = None
                continue
            if type(node).__name__ == "CheckpointFunctionBackward":
                raise UserError(
                    "a part of the network is checkpointed with use_reentrant=True, which hides its layers: write "
                    "checkpoint(..., use_reentrant=False)"
                )
            waiting += [before for before, _ in node.next_functions]
        return list(found)


def _feeding(neuron: nn.Module, seen: list[nn.Module], sources: dict[nn.Module, set[nn.Module]]) -> set[nn.Module]:
    layers = {module for module in seen if module in sources}
    return {layer for layer in layers if sources[layer] != {neuron}} or layers


def _merged(calls: list[set[nn.Module]], *, order: Sequence[nn.Module]) -> list[Layers]:
    groups: list[set[nn.Module]] = []
    for layers in filter(None, calls):
        alike = [group for group in groups if group & layers]
        groups = [group for group in groups if not group & layers] + [layers.union(*alike)]
    whole = [next((group for group in groups if group & layers), set()) for layers in calls]
    if len(groups) == 1:  # a call without a layer, as one that gets zeros at the first step, belongs to the others
        whole = groups * len(calls)
    return [tuple(layer for layer in order if layer in group) for group in whole]
