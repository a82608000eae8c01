r"""Wake up a network whose neurons do not fire: scale its weights, layer by layer, to a given firing rate.

A neuron fires if its current reaches the threshold. Weights that start too small, as those of PyTorch's layers do
without a norm, shrink the current from layer to layer until nothing fires, and no gradient survives. One factor a layer
mends this: multiplying weight and bias by $f$ multiplies the current by $f$, and the firing rate grows with it.

Going from the input to the output and looking at the data is what layer-sequential unit-variance initialization does
(Mishkin and Matas, ICLR 2016); the measure here is the firing rate, not the variance. The paper uses batch norm, and
has nothing of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from shortback.errors import UserError
from shortback.health.layers import THE_NETWORK
from shortback.health.neurons import Watched, neurons_of
from shortback.inspection.backends import with_backend
from shortback.inspection.feeds import Feeds, Layers
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import first_tensor, num_features, tensor_of
from shortback.inspection.libraries import whole_modules
from shortback.inspection.mistakes import check_batch, explaining
from shortback.inspection.reset import reset_states
from shortback.inspection.trunk import trunk_of
from shortback.inspection.untouched import in_training, undisturbed
from shortback.spiking import SpikingNetwork
from shortback.torch_private import is_compiled

_LOWEST = 1 / 3  # of the wanted rate: what fires at least so often, and at most at _HIGHEST, is left as it is
_HIGHEST = 0.6  # rates up to one half are usual after residual connections, which one layer alone cannot lower
_MET = 1.1  # a search ends at a rate within this factor of the wanted one
_STRIDE = 4.0  # by which the first factors tried differ
_LARGEST = 2.0**20  # factor, and 1 over the smallest
_MIN_GAP = 1.01  # between the factors of a rate below and of one above the wanted one, for another factor between
_SCALED = ("weight", "bias", "weight_orig", "bias_orig", "weight_g")  # with torch.nn.utils.prune, and weight_norm


@dataclass(frozen=True)
class ScaledLayer:
    """A layer of neurons, and the layers with weights that feed it.

    Attributes:
        neurons: the name of the layer of neurons.
        weights: the names of the layers that feed it: several where their outputs are added, as with a shortcut
            connection that has a convolution; empty if there is none.
        factor: by which their weights and biases were multiplied; 1 if they were left as they were.
        before: the firing rate, in spikes per neuron and step, before anything was scaled.
        after: the firing rate once every layer was scaled.
        left: why they were not scaled although the neurons fire too rarely or too often; None otherwise.
    """

    neurons: str
    weights: tuple[str, ...]
    factor: float
    before: float
    after: float
    left: str | None = None


@dataclass(frozen=True)
class Scaling:
    """What `scale_to_rate` did; `print` it.

    Attributes:
        firing_rate: the wanted one.
        layers: from the input to the output.
    """

    firing_rate: float
    layers: list[ScaledLayer]

    @property
    def num_scaled(self) -> int:
        """How many layers of neurons had the weights before them scaled."""
        return sum(layer.factor != 1 for layer in self.layers)

    def __str__(self) -> str:
        names = [(layer.neurons, ", ".join(layer.weights)) for layer in self.layers]
        widths = [max(map(len, column)) for column in zip(("neurons", "weights"), *names, strict=True)]
        rows = [f"{'neurons'.ljust(widths[0])}  {'weights'.ljust(widths[1])}    factor  rate before   after"]
        for layer, (neurons, weights) in zip(self.layers, names, strict=True):
            row = f"{neurons.ljust(widths[0])}  {weights.ljust(widths[1])}  {layer.factor:8.3g}"
            row += f"  {layer.before:11.2%}  {layer.after:6.2%}"
            rows.append(row if layer.left is None else f"{row}  not scaled: {layer.left}")
        return "\n".join(rows)


def scale_to_rate(net: nn.Module, x: Tensor, *, firing_rate: float = 0.1) -> Scaling:
    """Scale the weights of a network in place, layer by layer, until its neurons fire at about `firing_rate`.

    For networks that are dead or saturated at the start, as deep ones without norms often are. Call it before the
    optimizer is made, and before or after `attach`; heads of branches are left alone.

    For each layer of neurons, from the input to the output, the weight and the bias of the layers that feed it
    (convolutions, linear maps or norms) are multiplied by one factor, found by running the batch in training mode.
    Recurrent weights are left alone. Neurons of the output count too, even if the network returns their membrane.

    Neurons that fire at a third of the wanted rate or more, and at 60 % or less (for a rate above 20 %: half-way to 1),
    are left as they are, and so are layers that cannot be scaled: the result names them. All else is left as it was:
    statistics of norms, modes, hooks, gradients, the states of neurons and the random state. If the call fails or is
    interrupted, the weights are left as they were, too.

    Args:
        net: any spiking network, before `torch.compile`; its neurons are found as by `diagnose`.
        x: a batch as in training, of 16 samples or more. It runs some five times for each layer that is scaled, and up
            to twenty times for one that cannot be brought to the rate.
        firing_rate: spikes per neuron and step, in (0, 1).

    Returns:
        The factor and the firing rate of each layer, as a table if printed.

    Raises:
        ValueError: no neurons are seen to be fed by a layer with weights, the network is compiled, or an argument is
            wrong.
    """
    rate = _checked(net, x, firing_rate)
    model = trunk_of(net)
    trunk = model.network if isinstance(model, SpikingNetwork) else model
    # The last one is innermost: `inference_mode(False)`, also that of `undisturbed`, turns gradients on.
    with with_backend("reference", model), undisturbed(model, x), torch.no_grad():
        x = x.clone() if x.is_inference() else x
        with explaining(model, x, what="batch"):
            watched = neurons_of(trunk, model, x, silent=True)
            network = _Network(in_training(model), trunk, watched, x)
            start = network.rates()
        if not any(group.layers for group in start):
            raise UserError(_why_nothing(trunk, watched))
        try:
            scaling, factors = _search_all(network, trunk, start, rate)
        finally:
            network.put_back()
    with torch.no_grad():
        for parameter, factor in factors.items():
            parameter.mul_(factor)
    return scaling


def _checked(net: nn.Module, x: Tensor, firing_rate: Any) -> float:
    if not isinstance(net, nn.Module):
        raise UserError(f"the network is a {type(net).__name__}: call scale_to_rate(net, x)")
    if any(map(is_compiled, net.modules())):
        raise UserError("the network is compiled, so hooks would not run: pass the network from before torch.compile")
    check_batch(x, what="batch")
    if x.is_floating_point() and not x.isfinite().all():
        raise UserError("the batch has NaN or infinite values: clean the data")
    try:
        rate = math.nan if isinstance(firing_rate, str) else float(firing_rate)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0 < rate < 1:
        raise UserError(f"firing_rate={firing_rate!r}: give a number between 0 and 1, such as 0.1 for 10 %")
    return rate


def _why_nothing(trunk: nn.Module, watched: Watched) -> str:
    name = type(trunk).__name__
    if watched.neurons:
        neurons = ", ".join(watched.neurons)
        return f"no layer of a known kind (a convolution, linear map or norm) feeds the neurons of {name}: {neurons}"
    return f"no neurons were seen in {name}: a neuron must be a module of its own, called by the forward pass"


@dataclass(frozen=True)
class _Group:
    """A layer of neurons and the layers that feed it; modules are compared by identity."""

    neurons: nn.Module
    layers: Layers


def _search_all(
    network: _Network, trunk: nn.Module, start: dict[_Group, float], wanted: float
) -> tuple[Scaling, dict[nn.Parameter, float]]:
    """Scale layer by layer; returns the result, and the factor of every parameter that is to be scaled."""
    rates, names = start, {module: name or THE_NETWORK for name, module in trunk.named_modules()}
    found: list[tuple[_Group, float, str | None]] = []
    factors: dict[nn.Parameter, float] = {}
    done: set[nn.Parameter] = set()
    for group in start:
        rate, factor, left = rates.get(group, 0.0), None, None
        if not _is_enough(rate, wanted):
            left = network.why_left(group, done)
            factor = network.search(group, rate, wanted) if left is None else None
            if factor is not None:
                factors |= dict.fromkeys(_weights(group.layers), factor)
                rates = network.rates()
            elif left is None:
                left = "no factor leads to such a rate"
        done.update(_weights(group.layers))
        found.append((group, factor or 1.0, left))
    layers = [
        ScaledLayer(names[group.neurons], tuple(names[layer] for layer in group.layers), *change, left)
        for group, factor, left in found
        for change in [(factor, start[group], rates.get(group, 0.0))]
    ]
    return Scaling(wanted, layers), factors


class _Network:
    """A network in training mode whose firing rates are measured on a batch, with weights that are put back."""

    def __init__(self, model: nn.Module, trunk: nn.Module, watched: Watched, x: Tensor) -> None:
        self._model, self._x = model, x
        self._which = {module: watched.which.get(name) for name, module in watched.neurons.items()}
        self._layers = [module for _, module in whole_modules(trunk) if num_features(module) is not None]
        self._feeds = Feeds.of(model, x, layers=self._layers, neurons=self._which)
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._reached: set[nn.Module] = set()

    def rates(self) -> dict[_Group, float]:
        """The firing rate of each layer of neurons, in the order of their first calls."""
        fired: dict[_Group, Tensor] = {}
        counts: dict[_Group, int] = {}
        num_calls = dict.fromkeys(self._which, 0)
        self._reached = set()

        def note_layer(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = first_tensor(inputs)
            if module not in self._reached and x is not None and x.any():
                self._reached.add(module)

        def note_neurons(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls = self._feeds.by_call[module]
            spikes = tensor_of(output, self._which[module])
            if spikes is None or not calls:
                return
            group = _Group(module, calls[min(num_calls[module], len(calls) - 1)])
            num_calls[module] += 1
            num_fired = spikes.count_nonzero()
            fired[group] = fired[group] + num_fired if group in fired else num_fired
            counts[group] = counts.get(group, 0) + spikes.numel()

        reset_states(self._model)
        before, after = [(m, note_layer) for m in self._layers], [(m, note_neurons) for m in self._which]
        with hooked(before, before=True), hooked(after):
            self._model(self._x.clone())
        return {group: fired[group].item() / counts[group] for group in fired}

    def search(self, group: _Group, rate: float, wanted: float) -> float | None:
        """Scale the layers of a group so that its neurons fire at a rate near `wanted`; undone and None if none does.

        Args:
            rate: their rate as the layers are.
        """
        low, high = (1.0, math.inf) if rate < wanted else (0.0, 1.0)
        enough = []
        while high > _MIN_GAP * low:
            factor = low * _STRIDE if high == math.inf else high / _STRIDE if low == 0 else math.sqrt(low * high)
            if not 1 / _LARGEST <= factor <= _LARGEST:
                break
            self._scale(group.layers, factor)
            rate = self.rates().get(group, 0.0)
            if wanted / _MET <= rate <= wanted * _MET:
                return factor
            enough += [factor] if _is_enough(rate, wanted) else []
            low, high = (factor, high) if rate < wanted else (low, factor)
        # The smallest change that helps: where a residual is added, a factor near 0 would only cut the layer off.
        found = min(enough, key=lambda factor: abs(math.log(factor)), default=None)
        self._scale(group.layers, found or 1.0)
        return found

    def _scale(self, layers: Layers, factor: float) -> None:
        for parameter in _weights(layers):
            original = self._originals.setdefault(parameter, parameter.clone())
            parameter.data.copy_(original * factor)  # keeps the version, so that a graph that saved it stays valid

    def put_back(self) -> None:
        """Give all parameters the values that they had at first."""
        for parameter, original in self._originals.items():
            parameter.data.copy_(original)

    def why_left(self, group: _Group, done: set[nn.Parameter]) -> str | None:
        """Why the layers of a group cannot be scaled by multiplying their own parameters; None if they can."""
        if not group.layers:
            return "no layer feeds them"
        for layer in group.layers:
            if isinstance(layer, nn.RNNBase):
                return f"{type(layer).__name__} is recurrent"
            if is_parametrized(layer) or "weight_u" in layer._buffers:
                return "the weight is computed, as by torch.nn.utils.parametrize or spectral_norm"
        weights = _weights(group.layers)
        if not weights:
            return f"{type(group.layers[0]).__name__} has no weight, as with affine=False"
        if any(parameter in done for parameter in weights):
            return "the weights feed neurons before these, too"
        if not all(parameter.requires_grad for parameter in weights):
            return "the weights are frozen"
        if not self._reached & self._feeds.entries(group.layers):
            return "nothing reaches them: the input is 0, or the neurons before do not fire"
        return None


def _weights(layers: Layers) -> list[nn.Parameter]:
    own = (layer.named_parameters(recurse=False) for layer in layers)
    return [parameter for named in own for name, parameter in named if name in _SCALED]


def _is_enough(rate: float, wanted: float) -> bool:
    return _LOWEST * wanted <= rate <= max(_HIGHEST, (1 + wanted) / 2)
