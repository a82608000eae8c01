"""Which modules fire, and how often."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.hooks import hooked
from shortback.inspection.layout import num_features
from shortback.inspection.libraries import is_library_neuron
from shortback.inspection.untouched import modes_kept
from shortback.neurons import SpikingNeuron


@torch.no_grad()
def firing_rates(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, float]:
    """Spikes a neuron and time step, in [0, 1], of every layer of neurons in the order of the network.

    Args:
        model: a spiking network, run in `eval()`; its mode is put back.
        batches: inputs of the network.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SpikingNeuron)}
    spikes = dict.fromkeys(layers, 0.0)
    outputs = dict.fromkeys(layers, 0)

    def counter(name: str):
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            spikes[name] += output.sum(dtype=torch.float32).item()
            outputs[name] += output.numel()

        return hook

    with modes_kept(model), hooked((module, counter(name)) for name, module in layers.items()):
        model.eval()
        for x in batches:
            model(x.clone())
    return {name: spikes[name] / outputs[name] for name in layers if outputs[name]}


def may_fire(module: nn.Module) -> bool:
    """Whether it is a neuron of ours or another library, or has neither submodules nor the weights of a layer."""
    known = isinstance(module, SpikingNeuron) or is_library_neuron(module)
    return known or not (any(module.children()) or num_features(module))


def fires(module: nn.Module, inputs: tuple[Any, ...], spikes: Tensor) -> bool:
    """Whether it turned something else into zeros and ones; a library's neuron may fire several times a step."""
    x = next((value for value in inputs if isinstance(value, Tensor)), None)
    if x is None or x.shape != spikes.shape or _is_binary(x):
        return False
    return _is_binary(spikes) or (is_library_neuron(module) and bool((spikes == spikes.round()).all()))


def _is_binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())
