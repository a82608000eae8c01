"""The first samples of a batch."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from shortback.inspection.backends import with_backend
from shortback.inspection.detect import find_layouts
from shortback.inspection.layout import sample_axis
from shortback.inspection.trunk import Branched, trunk_of
from shortback.spiking import SpikingNetwork
from shortback.targets import counts_mask


def first_samples(
    net: nn.Module, x: Tensor, target: Tensor, count: int, *, loss: object = None
) -> tuple[Tensor, Tensor]:
    """Take the first `count` samples of a batch and their targets; all if samples and steps are folded in the input.

    Samples whose label `loss` ignores come last. If it cannot be told which axis holds the samples, all are returned.
    """
    if len(target) <= count:
        return x, target
    axis = axis_of_samples(net, x, len(target))
    if axis is None:
        return x, target
    counts = counts_mask(target, loss=loss)
    if counts is None or counts[:count].all():
        return x.narrow(axis, 0, count), target[:count]
    chosen = counts.int().argsort(descending=True, stable=True)[:count].sort().values
    return x.index_select(axis, chosen), target[chosen]


def axis_of_samples(net: nn.Module, x: Tensor, num_samples: int) -> int | None:
    """The axis of an input along which the samples lie; None if they are folded with the steps.

    If an input has as many steps as samples, a run of the network tells which axis is which; if it cannot, the result
    is None too.
    """
    model = trunk_of(net)
    is_known = isinstance(model, SpikingNetwork) or (
        isinstance(net, Branched) and (net.num_steps is not None or net.batch_axis is not None)
    )
    if is_known or x.ndim <= 2 or not x.shape[0] == x.shape[1] == num_samples > 1:
        return sample_axis(net, x, num_samples)
    found = _FOUND.setdefault(net, {})
    if x.shape not in found:
        found[x.shape] = _axis_by_a_run(model, x)
    return found[x.shape]


_FOUND: WeakKeyDictionary[nn.Module, dict[torch.Size, int | None]] = WeakKeyDictionary()


def _axis_by_a_run(model: nn.Module, x: Tensor) -> int | None:
    try:
        with with_backend("reference", model), torch.inference_mode(False):
            return find_layouts(model, x.clone() if x.is_inference() else x, {}).batch_axis
    except Exception:  # from the network's own code; the run that follows will raise it
        return None
