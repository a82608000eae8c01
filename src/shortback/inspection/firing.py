"""How often neurons fire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.hooks import hooked
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
