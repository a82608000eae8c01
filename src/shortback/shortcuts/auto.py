r"""Place branches by measurement: a few blocks that bring every layer's gradient inside the band.

A branch with a linear head is attached after every block but the last, and the gradient of every layer is measured once
through each of them. Let $m_l$ be the gradient norm over weight norm of layer $l$ through the main output, $b_{kl}$ the
same through branch $k$ at the coefficient that training begins with (1 by default), and $\tilde m$ the median of $m$
over the last layers (`shortback.health.judgement`). A set $S$ of branches brings layer $l$ inside the band if

$$\sqrt{m_l^2 + \sum_{k \in S} b_{kl}^2} \ge \tilde m / 100,$$

since gradients through different outputs are close to orthogonal. The set grows greedily by the branch that brings the
most layers inside; branches that prove redundant are dropped at the end. Branches only add to a gradient, so they do
not cure one that explodes.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from shortback.choices import Layout, Reduction
from shortback.health import Measurement, first_samples, measure
from shortback.health.judgement import BAND, reference
from shortback.health.measurement import MAIN, LayerGradient
from shortback.inspection.calls import Calls
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed
from shortback.losses import ShortcutLoss
from shortback.shortcuts._strip import strip
from shortback.shortcuts.places import find_places
from shortback.shortcuts.tapping import tap

NUM_SAMPLES = 16

log = logging.getLogger("shortback")


def choose_places(
    model: nn.Module,
    sample: Tensor,
    *,
    layout: Layout | Literal["auto"] = "auto",
    reduce: Reduction | None = None,
    num_steps: int | None = None,
    features: int | None = None,
    output: int | str | None = None,
    loss: ShortcutLoss | None = None,
    coefficient: float = 1.0,
) -> list[str]:
    """Choose the blocks to tap, by name, in the order of the network; the middle block if no branch is needed.

    Args:
        model: a network without branches; left unchanged.
        sample: a batch of two or more real images to measure on, with random classes. At most 16 are used, or all if
            they are folded with the steps.
        layout, reduce, num_steps, features, output: as for `attach`.
        loss: the training loss; `ShortcutLoss()` by default.
        coefficient: the coefficient that training begins with, above 0.

    Raises:
        ValueError: see `attach` and `shortback.health.measure`.
    """
    run = functools.cache(lambda: Calls.of(model, sample))
    blocks = find_places(model, "blocks", run=run)
    settings = {"layout": layout, "reduce": reduce, "num_steps": num_steps, "features": features, "output": output}
    net = tap(model, blocks, sample=sample, run=run, **settings)
    try:
        with undisturbed(net, sample), torch.no_grad():
            reset_states(net)
            num_samples, num_classes = net.eval()(sample.clone()).logits.shape[-2:]
        target = torch.randint(num_classes, (num_samples,), generator=torch.Generator().manual_seed(0))
        sample, target = first_samples(net, sample, target.to(sample.device), NUM_SAMPLES)
        measured = measure(
            net, sample, target, loss=loss or ShortcutLoss(), coefficient=coefficient, backend="reference"
        )
    finally:
        strip(net)
    places, outside = smallest_set(measured, net.places)
    if outside:
        log.warning("at='auto': no branch brings the gradient of %s inside the band", ", ".join(outside))
    if not places:
        middle = net.places[len(net.places) // 2]
        why = "no layer's gradient fades where a branch could help"
        if not _usual_gradient(measured):
            why = "the last layers have no gradient, so no layer's can be judged (sb.diagnose says why)"
        log.warning("at='auto': %s; attaching one at %s", why, middle)
        return [middle]
    log.info("at='auto': %s", ", ".join(places))
    return places


def smallest_set(measured: Measurement, places: Iterable[str]) -> tuple[list[str], list[str]]:
    """Choose a few of the measured `places`; returns them, and the names of the layers that stay outside the band.

    Args:
        measured: a measurement with a branch at each of `places`.
        places: in the order of the network.
    """
    layers = _weighted(measured)
    lowest = _usual_gradient(measured) / BAND
    faint = [layer for layer in layers if layer.terms[MAIN] < lowest * layer.weight_norm]

    def inside(chosen: Iterable[str]) -> set[str]:
        outputs = (MAIN, *chosen)
        return {
            layer.name
            for layer in faint
            if math.hypot(*(layer.terms[output] for output in outputs)) >= lowest * layer.weight_norm
        }

    order, chosen = list(places), []
    while len(inside(chosen)) < len(faint):
        rest = [place for place in order if place not in chosen]
        best = max(rest, key=lambda place: len(inside([*chosen, place])), default=None)
        if best is None or len(inside([*chosen, best])) == len(inside(chosen)):
            break
        chosen.append(best)
    for place in list(chosen):
        others = [other for other in chosen if other != place]
        if inside(others) == inside(chosen):
            chosen = others
    outside = [layer.name for layer in faint if layer.name not in inside(chosen)]
    return sorted(chosen, key=order.index), outside


def _usual_gradient(measured: Measurement) -> float:
    """The median over the last layers of the gradient over weight through the main output."""
    return reference([layer.terms[MAIN] / layer.weight_norm for layer in _weighted(measured)])


def _weighted(measured: Measurement) -> list[LayerGradient]:
    return [layer for layer in measured.layers if layer.weight_norm]
