"""Firing rates of a network on a batch, and the factor of a layer's weights that brings them near a wanted rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from shortback.copies import tensors_in
from shortback.health.neurons import Watched
from shortback.inspection.feeds import Feeds, Layers
from shortback.inspection.generators import generators_kept
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import num_features, tensor_of
from shortback.inspection.libraries import whole_modules
from shortback.inspection.reset import reset_states

_LOWEST = 1 / 3  # of the wanted rate: what fires at least so often, and at most at _HIGHEST, is left as it is
_HIGHEST = 0.6  # rates up to one half are usual after residual connections, which one layer alone cannot lower
_MET = 1.1  # a search ends at a rate within this factor of the wanted one
_STRIDE = 4.0  # by which the first factors tried differ
_LARGEST = 2.0**20  # factor, and 1 over the smallest
_MIN_GAP = 1.01  # a search ends when the factors around the wanted rate are within this ratio
_SCALED = ("weight", "bias", "weight_orig", "bias_orig", "weight_g")  # with torch.nn.utils.prune, and weight_norm


@dataclass(frozen=True)
class Group:
    """A layer of neurons and the layers that feed it; modules are compared by identity."""

    neurons: nn.Module
    layers: Layers


class RatedNetwork:
    """A network in training mode whose firing rates are measured on a batch, with weights that are put back.

    Args:
        model: the network.
        x: the batch.
        which: its neurons, and for each which of several returned tensors are the spikes.
        feeds: which layers feed them.
    """

    def __init__(self, model: nn.Module, x: Tensor, which: dict[nn.Module, int | str | None], feeds: Feeds) -> None:
        self._model, self._x, self._which, self._feeds = model, x, which, feeds
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._reached: set[nn.Module] = set()

    @classmethod
    def of(cls, model: nn.Module, trunk: nn.Module, watched: Watched, x: Tensor) -> RatedNetwork:
        """Find the layers of a network, and which of them feed which neurons, by running it once."""
        which = {module: watched.which.get(name) for name, module in watched.neurons.items()}
        layers = [module for _, module in whole_modules(trunk) if num_features(module) is not None]
        return cls(model, x, which, Feeds.of(model, x, layers=layers, neurons=which))

    def rates(self) -> dict[Group, float]:
        """The firing rate of each layer of neurons, in the order of their first calls."""
        fired: dict[Group, Tensor] = {}
        counts: dict[Group, int] = {}
        num_calls = dict.fromkeys(self._which, 0)
        self._reached = set()

        def note_layer(module: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any]) -> None:
            if module not in self._reached and any(bool(x.any()) for x in tensors_in((inputs, by_keyword))):
                self._reached.add(module)

        def note_neurons(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls, index = self._feeds.by_call[module], num_calls[module]
            num_calls[module] += 1
            spikes = tensor_of(output, self._which[module])
            if spikes is None or not calls:
                return
            group = Group(module, calls[min(index, len(calls) - 1)])
            num_fired = spikes.count_nonzero()
            fired[group] = fired[group] + num_fired if group in fired else num_fired
            counts[group] = counts.get(group, 0) + spikes.numel()

        torch.clear_autocast_cache()  # of weights that were scaled since
        reset_states(self._model)
        before, after = [(m, note_layer) for m in self._feeds.sources], [(m, note_neurons) for m in self._which]
        # The same random numbers each time, as of dropout, so that rates differ by the factor alone.
        with hooked(before, before=True, with_kwargs=True), hooked(after), generators_kept(self._x):
            self._model(self._x.clone())
        return {group: fired[group].item() / counts[group] for group in fired}

    def search(self, group: Group, layers: Layers, rate: float, wanted: float) -> float | None:
        """Scale layers until the neurons they feed fire at about `wanted`; if none helps, undo it and return None.

        Args:
            group: the neurons.
            layers: the layers of the group to scale.
            rate: the neurons' present rate.
        """
        low, high = (1.0, math.inf) if rate < wanted else (0.0, 1.0)
        tried = []
        while high > _MIN_GAP * low:
            factor = low * _STRIDE if high == math.inf else high / _STRIDE if low == 0 else math.sqrt(low * high)
            if not 1 / _LARGEST <= factor <= _LARGEST:
                break
            self._scale(layers, factor)
            rate = self.rates().get(group, 0.0)
            if wanted / _MET <= rate <= wanted * _MET:
                return factor
            tried += [factor] if is_enough(rate, wanted) else []
            low, high = (factor, high) if rate < wanted else (low, factor)
        # The smallest change that helps: where a residual is added, a factor near 0 would only cut the layer off.
        found = min(tried, key=lambda factor: abs(math.log(factor)), default=None)
        self._scale(layers, found or 1.0)
        return found

    def _scale(self, layers: Layers, factor: float) -> None:
        for parameter in weights_of(layers):
            original = self._originals.setdefault(parameter, parameter.clone())
            parameter.data.copy_(original * factor)  # keeps the version, so that a graph that saved it stays valid

    def put_back(self) -> None:
        """Give all parameters the values that they had at first."""
        for parameter, original in self._originals.items():
            parameter.data.copy_(original)

    def free(self, group: Group, done: set[nn.Parameter]) -> tuple[Layers, str | None]:
        """The layers of a group that can be scaled by multiplying their own parameters; if none, the reason too."""
        if not group.layers:
            return (), "no layer feeds them"
        if not self._reached & self._feeds.entries(group.layers):
            return (), "nothing reaches them: the input is 0, or the neurons before do not fire"
        reasons = {layer: _why_left(layer, done) for layer in group.layers}
        free = tuple(layer for layer, reason in reasons.items() if reason is None)
        return free, None if free else reasons[group.layers[0]]


def _why_left(layer: nn.Module, done: set[nn.Parameter]) -> str | None:
    weights = weights_of((layer,))
    if isinstance(layer, nn.RNNBase):
        return f"{type(layer).__name__} is recurrent"
    if is_parametrized(layer) or "weight_u" in layer._buffers:
        return "the weight is computed, as by torch.nn.utils.parametrize or spectral_norm"
    if not weights:
        return f"{type(layer).__name__} has no weight, as with affine=False"
    if any(parameter in done for parameter in weights):
        return "the weights feed neurons before these, too"
    return None if all(parameter.requires_grad for parameter in weights) else "the weights are frozen"


def weights_of(layers: Layers) -> list[nn.Parameter]:
    """The parameters to multiply in order to scale the layers' outputs."""
    own = (layer.named_parameters(recurse=False) for layer in layers)
    return [parameter for named in own for name, parameter in named if name in _SCALED]


def enough(wanted: float) -> tuple[float, float]:
    """The lowest and the highest rate at which neurons are left as they are."""
    return _LOWEST * wanted, max(_HIGHEST, (1 + wanted) / 2)


def is_enough(rate: float, wanted: float) -> bool:
    """Whether neurons that fire at a rate are left as they are."""
    lowest, highest = enough(wanted)
    return lowest <= rate <= highest
