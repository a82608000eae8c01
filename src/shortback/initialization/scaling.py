r"""Wake up a network whose neurons do not fire: scale its weights, layer by layer, to a given firing rate.

A neuron fires if its current reaches the threshold. Weights that start too small, as those of PyTorch's layers do
without a norm, shrink the current from layer to layer until nothing fires, and no gradient survives. One factor a layer
mends this: multiplying weight and bias by $f$ multiplies the current by $f$, and the firing rate grows with it, except
where something else is added to the current.

Going from the input to the output and looking at the data is what layer-sequential unit-variance initialization does
(Mishkin and Matas, ICLR 2016); the measure here is the firing rate, not the variance. The paper uses batch norm, and
needs none of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shortback.errors import UserError
from shortback.health.layers import THE_NETWORK
from shortback.health.neurons import Watched, neurons_of
from shortback.initialization.rates import Group, RatedNetwork, enough, is_enough, weights_of
from shortback.inspection.backends import with_backend
from shortback.inspection.feeds import Layers
from shortback.inspection.mistakes import check_batch, explaining, refuse_compiled
from shortback.inspection.trunk import trunk_of
from shortback.inspection.untouched import in_training, undisturbed
from shortback.spiking import SpikingNetwork


@dataclass(frozen=True)
class LayerScaling:
    """What was done to the weights before a layer of neurons.

    Attributes:
        neurons: the name of the layer of neurons.
        weights: the names of the layers that were scaled: several where their outputs are added, as with a shortcut
            connection that has a convolution. If none was, all layers that feed the neurons, if any.
        factor: what multiplied their weights and biases; 1 if they were left as they were.
        before: the firing rate, in spikes per neuron and step, before anything was scaled.
        after: the firing rate once every layer was scaled.
        left: why nothing was scaled although the neurons fire too rarely or too often; None otherwise.
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
        firing_rate: the target.
        layers: from the input to the output; a module that is used after several layers has one for each use.
    """

    firing_rate: float
    layers: list[LayerScaling]

    @property
    def num_scaled(self) -> int:
        """How many layers of neurons had the weights before them scaled."""
        return sum(layer.factor != 1 for layer in self.layers)

    def __str__(self) -> str:
        names = [(layer.neurons, ", ".join(layer.weights)) for layer in self.layers]
        widths = [max(map(len, column)) for column in zip(("neurons", "weights"), *names, strict=True)]
        lowest, highest = enough(self.firing_rate)
        rows = [f"wanted: {self.firing_rate:.2%}; rates from {lowest:.2%} to {highest:.0%} are left as they are"]
        rows += [f"{'neurons'.ljust(widths[0])}  {'weights'.ljust(widths[1])}    factor  rate before   after"]
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
    Recurrent weights are left alone if they can be recognised by the gradient of the spikes. Neurons of the
    output count too, even if the network returns their membrane.

    Neurons that fire at a third of the wanted rate or more, and at 60 % or less (for a rate above 20 %: half-way to 1),
    are left as they are, and so are layers that cannot be scaled: the result names them. All else is left as it was:
    statistics of norms, modes, hooks, gradients, the states of neurons and the random state. If the call fails or is
    interrupted, the weights are left as they were, too. In `eval()`, norms that have not been trained use statistics
    that do not fit yet, so a network may still be silent there.

    Args:
        net: any spiking network, before `torch.compile`; its neurons are found as by `diagnose`.
        x: a batch as in training, `[N, ...]` or with time, such as `[T, N, ...]`, of 16 samples or more. It runs some
            five times for each layer that is scaled, and up to twenty for one that cannot be brought to the rate.
        firing_rate: spikes per neuron and step, in (0, 1).

    Returns:
        The factor and the firing rate of each layer, as a table if printed.

    Raises:
        ValueError: no layer with weights is seen to feed neurons; the network is compiled, was made in
            inference mode, or is checkpointed with `use_reentrant=True`; an argument is wrong.
    """
    rate = _checked(net, x, firing_rate)
    model = trunk_of(net)
    trunk = model.network if isinstance(model, SpikingNetwork) else model
    # The last one is innermost: `inference_mode(False)`, also that of `undisturbed`, turns gradients on.
    with with_backend("reference", model), undisturbed(model, x), torch.no_grad():
        x = x.clone() if x.is_inference() else x
        with explaining(model, x, what="batch"):
            watched = neurons_of(trunk, model, x, silent=True)
            network = RatedNetwork.of(in_training(model), trunk, watched, x)
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
    torch.clear_autocast_cache()  # of the weights as they were
    return scaling


def _checked(net: nn.Module, x: Tensor, firing_rate: Any) -> float:
    if not isinstance(net, nn.Module):
        raise UserError(f"the network is a {type(net).__name__}: call scale_to_rate(net, x)")
    refuse_compiled(net)
    if any(p.is_inference() for p in net.parameters() if not is_lazy(p)):
        raise UserError("the weights were made in inference mode, and cannot be trained: build the network outside it")
    check_batch(x, what="batch")
    if x.is_floating_point() and not x.isfinite().all():
        raise UserError("the batch has NaN or infinite values: clean the data")
    if not x.any():
        raise UserError("the batch is all 0, which makes no neuron fire: give a batch of your data")
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


def _search_all(
    network: RatedNetwork, trunk: nn.Module, start: dict[Group, float], wanted: float
) -> tuple[Scaling, dict[nn.Parameter, float]]:
    """Scale layer by layer; returns the result, and the factor of every parameter that is to be scaled."""
    rates, names = start, {module: name or THE_NETWORK for name, module in trunk.named_modules()}
    found: list[tuple[Group, Layers, float, str | None]] = []
    factors: dict[nn.Parameter, float] = {}
    done: set[nn.Parameter] = set()
    for group in start:
        layers, factor, left = group.layers, None, None
        if not is_enough(rates.get(group, 0.0), wanted):
            free, left = network.free(group, done)
            if free:
                factor = network.search(group, free, rates.get(group, 0.0), wanted)
                left = "no factor gives such a rate" if factor is None else None
                layers = group.layers if factor is None else free
                factors |= {} if factor is None else dict.fromkeys(weights_of(free), factor)
                rates = network.rates()
        done.update(weights_of(group.layers))
        found.append((group, layers, factor or 1.0, left))
    done_to = [
        LayerScaling(
            neurons=names[group.neurons],
            weights=tuple(names[layer] for layer in layers),
            factor=factor,
            before=start[group],
            after=rates.get(group, 0.0),
            left=left,
        )
        for group, layers, factor, left in found
    ]
    return Scaling(wanted, done_to), factors
