r"""Judge a measurement: is the gradient healthy, and if not, what is wrong with it, where, and by how much per layer.

Let $r_l = \lVert g_l \rVert / \lVert w_l \rVert$ be the gradient norm of layer $l$ over its weight norm, in forward
order, and $\tilde r$ the median of $r$ over the last quarter of the layers (at least three), nearest to the loss:

- **factor** of a layer: $r_l / r_{l+1}$, by which the gradient is multiplied from the next layer back to this one;
- **slope**: $-b$ of the least-squares line $\log_{10} r_l \approx a + b\,l$ over layers with $r_l > 0$, in decades per
  layer on the way to the input: above 0 the gradient grows towards the input, below 0 it fades;
- **band**: $\tilde r / 100 \le r_l \le 100\,\tilde r$. A layer below learns over 100 times slower than the last ones;
- **effective depth**: the number of layers within a factor of 100 of the median over all layers.

Layers whose weights are all 0, such as a last layer that starts at 0, have no $r_l$ and are not among these layers.
These are Shortback's choices; the paper defines no such measures.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shortback.health.activity import NeuronActivity
from shortback.health.measurement import LayerGradient, Measurement
from shortback.words import quantity

Verdict = Literal["healthy", "vanishing", "exploding", "dead", "saturated", "not finite"]

BAND = 100.0
_ONLY_JUST = 2.0  # times the band: if the worst layer is less far outside, the report says so
STUCK = 0.95  # a layer is dead or saturated if at least this share of its neurons is


@dataclass(frozen=True)
class Judgement:
    """The verdict on a measurement.

    Attributes:
        verdict: the first that holds of: not finite; saturated or dead in more than half of the layers of neurons;
            dead, because a layer has no gradient at all; exploding or vanishing; dead or saturated in any layer of
            neurons; healthy.
        layer: where the problem starts; None if there is none. For gradients this is the first layer affected on the
            way from the output to the input, for dead or saturated neurons the first from the input on.
        reason: the numbers behind the verdict, in a sentence.
        slope: decades per layer towards the input; nan if fewer than two layers have a gradient.
        effective_depth: number of layers within a factor of 100 of the median.
        num_layers: number of layers measured. Neither number counts layers whose weights are all 0, since
            no gradient can be divided by them.
    """

    verdict: Verdict
    layer: str | None
    reason: str
    slope: float
    effective_depth: int
    num_layers: int


def judge(measured: Measurement) -> Judgement:
    """Judge a measurement, as the module's docstring describes."""
    layers = [layer for layer in measured.layers if layer.weight_norm]
    relative = [layer.relative for layer in layers]
    neurons = measured.neurons
    # Where all layers have a gradient, spikes without one do not reach the loss, as in a membrane readout.
    used = [neuron for neuron in neurons if not neuron.gradient_by_step or any(neuron.gradient_by_step)]
    half = len(neurons) / 2
    verdict, where, reason = (
        _not_finite(measured.layers)
        or _stuck(neurons, "saturated", more_than=half)
        or _stuck(neurons, "dead", more_than=half)
        or _without_gradient(measured.layers, neurons)
        or _out_of_band(layers)
        or _stuck(used, "dead", more_than=0)
        or _stuck(used, "saturated", more_than=0)
        or ("healthy", None, _span(relative))
    )
    if not neurons:
        reason += f"; no neurons were seen: {_why_unseen(measured.unseen)}"
    return Judgement(verdict, where, reason, slope(relative), effective_depth(relative), len(layers))


def factors(layers: Sequence[LayerGradient]) -> list[float | None]:
    """The relative gradient of each layer over that of the next with weights; None where there is no such ratio.

    That is the last layer, layers whose weights are all 0, and layers before one without a gradient.
    """
    found: list[float | None] = [None] * len(layers)
    weighted = [i for i, layer in enumerate(layers) if layer.weight_norm]
    for i, following in itertools.pairwise(weighted):
        if layers[following].relative:
            found[i] = layers[i].relative / layers[following].relative
    return found


def slope(relative: Sequence[float]) -> float:
    """The slope of relative gradients, in decades per layer towards the input; nan with fewer than two above 0."""
    points = [(i, math.log10(r)) for i, r in enumerate(relative) if 0 < r < math.inf]
    if len(points) < 2:
        return math.nan
    return -statistics.linear_regression(*zip(*points, strict=True)).slope


def effective_depth(relative: Sequence[float]) -> int:
    """The number of layers within a factor of 100 of the median of all; 0 if the median is 0 or not finite."""
    middle = statistics.median(relative) if relative else 0.0
    return sum(middle / BAND <= r <= middle * BAND for r in relative) if 0 < middle < math.inf else 0


def reference(relative: Sequence[float]) -> float:
    """The median of the last quarter of the layers, at least three; 0 where most of them have no gradient."""
    last = relative[-max(3, len(relative) // 4) :]
    return statistics.median(last) if last else 0.0


_Finding = tuple[Verdict, str | None, str] | None


def _not_finite(layers: Sequence[LayerGradient]) -> _Finding:
    for layer in reversed(layers):
        if layer.num_nan or layer.num_inf:
            count = f"{layer.num_nan} NaN and {layer.num_inf} infinite of {layer.num_weights} gradients"
            return "not finite", layer.name, f"{count} at {layer.name}"
    return None


def _stuck(neurons: Sequence[NeuronActivity], verdict: Literal["dead", "saturated"], *, more_than: float) -> _Finding:
    """The verdict `dead` or `saturated`, if it holds for more than `more_than` layers of neurons."""
    stuck = [neuron for neuron in neurons if getattr(neuron, verdict) >= STUCK]
    if len(stuck) <= more_than:
        return None
    first = stuck[0]
    what = "never fire on this batch" if verdict == "dead" else "fire at every step of every sample"
    share = f"{getattr(first, verdict):.0%} of the neurons of {first.name} {what}"
    layers = f"{len(stuck)} of {quantity(len(neurons), 'layer')} of neurons"
    return verdict, first.name, f"{share}; the same holds in {layers}"


def _without_gradient(every: Sequence[LayerGradient], neurons: Sequence[NeuronActivity]) -> _Finding:
    without = [layer for layer in every if layer.num_zero == layer.num_weights]
    without = [layer for layer in without if layer.weight_norm] or without
    if not without:
        return None
    after = next(iter(every[every.index(without[-1]) + 1 :]), None)
    silent = next((neuron.name for neuron in neurons if neuron.dead == 1), None)
    outside = next((neuron.name for neuron in reversed(neurons) if neuron.in_window == 0), None)
    if after is not None and not after.weight_norm:
        why = f"the weights of {after.name} are all 0 and let no gradient through"
        why += " until they are first updated" if after.gradient_norm else ", and have none themselves"
    elif silent is not None:
        why = f"{silent} never fires on this batch, so the layers after it get only zeros, and no gradient"
    elif outside is not None:
        why = f"no membrane of {outside} is inside the surrogate's window"
    else:
        why = "no gradient comes through the layers after them, or their inputs are 0"
    where = f"from {without[-1].name} to {without[0].name}" if len(without) > 1 else f"at {without[0].name}"
    share = f"{len(without)} of {quantity(len(every), 'layer')}"
    return "dead", without[-1].name, f"no gradient at all in {share}, {where}: {why}"


def _out_of_band(layers: Sequence[LayerGradient]) -> _Finding:
    relative = [layer.relative for layer in layers]
    middle = reference(relative)
    out = [i for i, r in enumerate(relative) if not middle / BAND <= r <= middle * BAND]
    if not out or not middle:
        return None
    worst = max(out, key=lambda i: abs(math.log10(relative[i] / middle)) if relative[i] else math.inf)
    grows = relative[worst] > middle
    start = max(i for i in out if (relative[i] > middle) == grows)
    per_layer = slope(relative)
    how = "times the" if grows else "of the"
    beyond = max(relative[worst] / middle, middle / relative[worst] if relative[worst] else math.inf) / BAND
    only_just = f"; only just, by a factor of {beyond:.2f} at most, in {len(out)} of {quantity(len(relative), 'layer')}"
    return (
        "exploding" if grows else "vanishing",
        layers[start].name,
        f"gradient over weight is {relative[worst]:.1e} at {layers[worst].name}, {relative[worst] / middle:.1e} {how} "
        f"{middle:.1e} of the last layers; a factor {10**per_layer:.2f} a layer towards the input, out of the band of "
        f"{BAND:.0f} from {layers[start].name} on{only_just if beyond < _ONLY_JUST else ''}",
    )


def _span(relative: Sequence[float]) -> str:
    if not relative:
        return "every layer has a gradient, but every weight is 0, so gradient over weight is undefined"
    return f"gradient over weight is between {min(relative):.1e} and {max(relative):.1e} in {_all(len(relative))}"


def _all(count: int) -> str:
    return f"all {count} layers" if count > 1 else "the one layer"


def _why_unseen(unseen: Sequence[str]) -> str:
    if unseen:
        return f"the forward of {', '.join(unseen)} is not called, and what neurons do in step() is not measured"
    return "no module of this network turns other values into zeros and ones"
