"""Which layers feed which neurons, by the autograd graph of a forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from shortback.inspection.hooks import hooked
from shortback.inspection.layout import first_tensor
from shortback.inspection.reset import reset_states

Layers = tuple[nn.Module, ...]


@dataclass(frozen=True)
class Feeds:
    """The nearest modules that the inputs of layers and neurons are made of.

    Attributes:
        by_call: for each call of a neuron, the layers whose outputs its input is made of, with no other layer and no
            neuron in between. Recurrent layers, which see nothing but this neuron's own spikes, are left out if others
            remain. A neuron that holds layers is fed by the last of these.
        sources: for each layer, the layers and neurons that its inputs were made of in all its calls.
    """

    by_call: dict[nn.Module, list[Layers]]
    sources: dict[nn.Module, set[nn.Module]]

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, *, layers: Collection[nn.Module], neurons: Collection[nn.Module]) -> Feeds:
        """Run a network once with gradients, as it is, and keep no activations for a backward pass.

        Args:
            model: the network.
            x: its input.
            layers: modules with weights.
            neurons: modules that fire, which may hold layers, or be layers themselves.
        """
        trace = _Trace()
        # Layers first: a module that is both counts as a neuron.
        before = [(module, trace.note_inputs) for module in dict.fromkeys([*layers, *neurons])]
        after = [(module, trace.note_outputs) for module in dict.fromkeys([*layers, *neurons])]
        reset_states(model)
        x = x.clone().requires_grad_() if x.is_floating_point() else x.clone()  # for layers that are frozen
        discard = saved_tensors_hooks(lambda tensor: None, lambda _: x)
        with torch.enable_grad(), discard, hooked(before, before=True), hooked(after):
            model(x)
        sources = {layer: set().union(*trace.inputs[layer]) for layer in layers}
        by_call = {}
        for neuron in neurons:
            inner = _last_of([m for m in neuron.modules() if m in sources], sources)
            calls = trace.inputs[neuron]
            if inner:
                by_call[neuron] = [inner] * len(calls)
            else:
                by_call[neuron] = [_feeding(neuron, seen, sources) for seen in calls]
        return cls(by_call, sources)

    def entries(self, layers: Layers) -> set[nn.Module]:
        """The layers, of those given and those before them, that are fed by neurons or by the input of the network."""
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

    def note_inputs(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = first_tensor(inputs)
        self.inputs[module].append([] if x is None else self._nearest(x))

    def note_outputs(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for tensor in _tensors(output):
            if tensor.grad_fn is not None:
                self._made[tensor.grad_fn] = module

    def _nearest(self, x: Tensor) -> list[nn.Module]:
        found: dict[nn.Module, None] = {}
        waiting, seen = [x.grad_fn], set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in self._made:
                found[self._made[node]] = None
            else:
                waiting += [before for before, _ in reversed(node.next_functions)]
        return list(found)


def _feeding(neuron: nn.Module, seen: list[nn.Module], sources: dict[nn.Module, set[nn.Module]]) -> Layers:
    layers = [module for module in seen if module in sources]
    others = [layer for layer in layers if sources[layer] != {neuron}]
    return tuple(others or layers)


def _last_of(layers: list[nn.Module], sources: dict[nn.Module, set[nn.Module]]) -> Layers:
    """Those of some layers that feed none of the others."""
    return tuple(layer for layer in layers if not any(layer in sources[other] for other in layers))


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for each in output:
            yield from _tensors(each)
