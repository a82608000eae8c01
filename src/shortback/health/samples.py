"""The first samples of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shortback.inspection.backends import with_backend
from shortback.inspection.detect import find_layouts
from shortback.inspection.layout import sample_axis
from shortback.inspection.trunk import Branched, trunk_of
from shortback.spiking import SpikingNetwork


def first_samples(net: nn.Module, x: Tensor, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Take the first `count` samples of a batch and their targets; all if samples and steps are folded in the input.

    If an input has as many steps as samples, a run of the network tells which axis is which; if it cannot, all samples
    are returned.
    """
    axis, model = sample_axis(net, x, len(target)), trunk_of(net)
    is_known = isinstance(model, SpikingNetwork) or (
        isinstance(net, Branched) and (net.num_steps is not None or net.batch_axis is not None)
    )
    if not is_known and x.ndim > 2 and x.shape[0] == x.shape[1] == len(target) > count:
        axis = _axis_by_a_run(model, x)
    return (x, target) if axis is None else (x.narrow(axis, 0, min(count, x.shape[axis])), target[:count])


def _axis_by_a_run(model: nn.Module, x: Tensor) -> int | None:
    try:
        with with_backend("reference", model), torch.inference_mode(False):
            return find_layouts(model, x.clone() if x.is_inference() else x, {}).batch_axis
    except Exception:  # from the network's own code; the run that follows will raise it
        return None
