"""How often neurons fire, and whether the output ever does."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.backends import with_backend
from shortback.inspection.calls import Calls, is_known_neuron
from shortback.inspection.hooks import hooked
from shortback.inspection.layer_calls import LayerCalls
from shortback.inspection.layout import stacked, tensor_of
from shortback.inspection.libraries import is_integrator, whole_modules
from shortback.inspection.probes import set_norms
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import modes_kept, undisturbed
from shortback.neurons import SpikingNeuron


@torch.no_grad()
def firing_rates(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, float]:
    """Firing rates of the layers of neurons by name, in network order: spikes per neuron and time step, in [0, 1].

    Neurons of this package are known by their class. If there are none, or others of a known library beside them, all
    neurons are found by running the network on the first batch (`shortback.inspection.calls`) and are reset before
    every batch; the network is left as it was.

    Args:
        model: a spiking network; it is run in `eval()`, and its mode is restored.
        batches: input batches of the network, each `[N, ...]` or `[T, N, ...]`.

    Raises:
        ValueError: `batches` is a tensor, or an item is not one.
    """
    if isinstance(batches, Tensor):
        raise UserError("firing_rates() takes batches, and a tensor is one of them: pass [x]")
    batches = map(_checked, batches)
    known = {name: module for name, module in whole_modules(model) if is_known_neuron(module)}
    if known and all(isinstance(module, SpikingNeuron) for module in known.values()):
        with modes_kept(model):
            return _rates(model, known, batches)
    for first in batches:
        calls = Calls.of(model, first)
        layers = {n: m for n, m in model.named_modules() if m in calls.firing and not is_integrator(m)}
        with undisturbed(model, first):
            again = map(functools.partial(_after_reset, model), itertools.chain([first], batches))
            return _rates(model, layers, again, calls.spikes_at)
    return {}


def _checked(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        raise UserError(f"firing_rates() takes batches of inputs alone, and got {type(x).__name__}: pass x of (x, y)")
    return x


def _after_reset(model: nn.Module, x: Tensor) -> Tensor:
    reset_states(model)
    return x


def _rates(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Tensor],
    spikes_at: Mapping[nn.Module, int | str] = MappingProxyType({}),
) -> dict[str, float]:
    spikes = dict.fromkeys(layers, 0.0)
    outputs = dict.fromkeys(layers, 0)

    def counter(name: str):
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            fired = tensor_of(output, spikes_at.get(module))
            if fired is not None:
                spikes[name] += fired.sum(dtype=torch.float32).item()
                outputs[name] += fired.numel()

        return hook

    with hooked((module, counter(name)) for name, module in layers.items()):
        model.eval()
        for x in batches:
            model(x.clone())
    return {name: spikes[name] / outputs[name] for name in layers if outputs[name]}


@torch.no_grad()
def returns_zeros(model: nn.Module, x: Tensor) -> bool:
    """Whether a network returns 0 for all samples, in `eval()` and with batch norm on the batch: it never fires.

    A network whose last layer has only zeros as parameters does not count.
    """
    with undisturbed(model, x), with_backend("reference", model), LayerCalls.of(model) as calls:
        model.eval()
        for by_batch in (False, True):
            set_norms(model, training=by_batch)
            reset_states(model)
            if stacked(model(x.clone())).any():
                return False
    return calls.last is None or any(bool(p.any()) for p in calls.last.parameters())
