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
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import num_features, tensor_of
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


@dataclass(frozen=True)
class ScaledLayer:
    """A layer with weights, and the layer of neurons that follows it.

    Attributes:
        name: the name of the layer with weights.
        neurons: the name of the layer of neurons.
        factor: by which its weight and bias were multiplied; 1 if they were left as they were.
        before: the firing rate, in spikes per neuron and step, before anything was scaled.
        after: the firing rate once every layer was scaled.
        left: why it was not scaled although it fires too rarely or too often; None otherwise.
    """

    name: str
    neurons: str
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
        """How many layers were scaled."""
        return sum(layer.factor != 1 for layer in self.layers)

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        rows = [f"{'layer'.ljust(width)}    factor  rate before   after"]
        for layer in self.layers:
            row = f"{layer.name.ljust(width)}  {layer.factor:8.3g}  {layer.before:11.2%}  {layer.after:6.2%}"
            rows.append(row if layer.left is None else f"{row}  not scaled: {layer.left}")
        return "\n".join(rows)


def scale_to_rate(net: nn.Module, x: Tensor, *, firing_rate: float = 0.1) -> Scaling:
    """Scale the weights of a network in place, layer by layer, until its neurons fire at about `firing_rate`.

    For networks that are dead or saturated at the start, as deep ones without norms often are. Call it before the
    optimizer is made, and before or after `attach`; heads of branches are left alone.

    For each layer of neurons, from the input to the output, the weight and the bias of the layer called last before it
    (a convolution, a linear map or a norm) are multiplied by one factor, found by running the batch in training mode.
    Layers of neurons that fire at a third of the wanted rate or more, and at 60 % or less, are left as they are, and so
    are layers that cannot be scaled: the result names them. All else is left as it was: statistics of norms, modes,
    hooks, the states of neurons and the random state.

    Args:
        net: any spiking network, before `torch.compile`; its neurons are found as by `diagnose`.
        x: a batch as in training, of 16 samples or more. It runs some five times for every layer that is scaled.
        firing_rate: spikes per neuron and step, in (0, 1).

    Returns:
        The factor and the firing rate of each layer, as a table if printed.

    Raises:
        ValueError: no neurons are seen to follow a layer with weights, the network is compiled, or an argument is
            wrong.
    """
    if not (isinstance(firing_rate, int | float) and 0 < firing_rate < 1):
        raise UserError(f"firing_rate={firing_rate!r}: give a number between 0 and 1, such as 0.1 for 10 %")
    if any(map(is_compiled, net.modules())):
        raise UserError("the network is compiled, so hooks would not run: pass the network from before torch.compile")
    check_batch(x, what="batch")
    model = trunk_of(net)
    trunk = model.network if isinstance(model, SpikingNetwork) else model
    # The last one is innermost: `inference_mode(False)`, also that of `undisturbed`, turns gradients on.
    with with_backend("reference", model), undisturbed(model, x), torch.no_grad():
        x = x.clone() if x.is_inference() else x
        with explaining(model, x, what="batch"):
            network = _Network(in_training(model), trunk, neurons_of(trunk, model, x), x)
            start = rates = network.rates()
        if not rates:
            raise UserError(
                f"no neurons were seen to follow a layer with weights in {type(trunk).__name__}: a neuron must be a "
                "module of its own, called by the forward pass"
            )
        found: list[tuple[_Pair, float, str | None]] = []
        done: set[int] = set()
        for pair in start:
            rate, factor, left = rates.get(pair, 0.0), None, None
            if not _is_enough(rate, firing_rate):
                left = _why_left(pair.layer, done)
                factor = network.search(pair, rate, firing_rate) if left is None else None
                if factor is None:
                    left = left or "no factor leads to such a rate"
                else:
                    done |= {id(p) for p in pair.layer.parameters(recurse=False)}
                    rates = network.rates()
            found.append((pair, factor or 1.0, left))
    names = {module: name or THE_NETWORK for name, module in trunk.named_modules()}
    layers = [
        ScaledLayer(names[pair.layer], names[pair.neurons], factor, start[pair], rates.get(pair, 0.0), left)
        for pair, factor, left in found
    ]
    return Scaling(firing_rate, layers)


@dataclass(frozen=True)
class _Pair:
    """A layer with weights and the neurons that are called next; modules are compared by identity."""

    layer: nn.Module
    neurons: nn.Module


class _Network:
    """A network in training mode whose firing rates are measured on a batch."""

    def __init__(self, model: nn.Module, trunk: nn.Module, watched: Watched, x: Tensor) -> None:
        self._model, self._x = model, x
        self._neurons = {module: watched.which.get(name) for name, module in watched.neurons.items()}
        self._layers = [module for _, module in whole_modules(trunk) if num_features(module) is not None]

    def rates(self) -> dict[_Pair, float]:
        """The firing rate of the neurons of each pair, in the order of their first calls."""
        fired: dict[_Pair, Tensor] = {}
        counts: dict[_Pair, int] = {}
        last: nn.Module | None = None
        encoders: set[nn.Module] = set()  # neurons before any layer; at a later step, one layer or more came before

        def note_layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal last
            last = module

        def note_neurons(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            spikes = tensor_of(output, self._neurons[module])
            if last is None:
                encoders.add(module)
            if spikes is None or last is None or module in encoders:
                return
            pair = _Pair(last, module)
            num_fired = spikes.count_nonzero()
            fired[pair] = fired[pair] + num_fired if pair in fired else num_fired
            counts[pair] = counts.get(pair, 0) + spikes.numel()

        reset_states(self._model)
        # Layers first: a module that holds weights and fires is both.
        with hooked((m, note_layer) for m in self._layers), hooked((m, note_neurons) for m in self._neurons):
            self._model(self._x.clone())
        return {pair: fired[pair].item() / counts[pair] for pair in fired}

    def search(self, pair: _Pair, rate: float, wanted: float) -> float | None:
        """Scale the layer of a pair so that its neurons fire at a rate near `wanted`; undone and None if none does.

        Args:
            rate: their rate as the layer is.
        """
        weights = [(p, p.clone()) for p in pair.layer.parameters(recurse=False)]

        def scale(factor: float) -> None:
            for parameter, original in weights:
                parameter.copy_(original * factor)

        low, high = (1.0, math.inf) if rate < wanted else (0.0, 1.0)
        enough = []
        while high > _MIN_GAP * low:
            factor = low * _STRIDE if high == math.inf else high / _STRIDE if low == 0 else math.sqrt(low * high)
            if not 1 / _LARGEST <= factor <= _LARGEST:
                break
            scale(factor)
            rate = self.rates().get(pair, 0.0)
            if wanted / _MET <= rate <= wanted * _MET:
                return factor
            enough += [factor] if _is_enough(rate, wanted) else []
            low, high = (factor, high) if rate < wanted else (low, factor)
        # The smallest change that helps: where a residual is added, a factor near 0 would only cut the layer off.
        found = min(enough, key=lambda factor: abs(math.log(factor)), default=None)
        scale(found or 1.0)
        return found


def _is_enough(rate: float, wanted: float) -> bool:
    return _LOWEST * wanted <= rate <= max(wanted / _LOWEST, _HIGHEST)


def _why_left(layer: nn.Module, done: set[int]) -> str | None:
    """Why a layer cannot be scaled by multiplying its own parameters; None if it can."""
    own = list(layer.parameters(recurse=False))
    if isinstance(layer, nn.RNNBase):
        return f"{type(layer).__name__} is recurrent"
    if is_parametrized(layer):
        return "its weight is computed by torch.nn.utils.parametrize"
    if not own:
        return f"{type(layer).__name__} has no weight, as with affine=False"
    if any(id(p) in done for p in own):
        return "it was scaled for the neurons before"
    if not all(p.requires_grad for p in own):
        return "it is frozen"
    return None
