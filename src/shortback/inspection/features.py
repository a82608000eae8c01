"""Find the axis of the features by a run, where sizes leave it open.

So it is for images as wide as they have channels, for blocks that end with a concatenation, and for those whose last
layer makes a gate and not the features, as channel attention (ECA) and temporal attention do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortback.choices import Layout
from shortback.inspection.backends import running_by
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import (
    as_long_as_features,
    axes_of_features,
    feature_axis,
    first_tensor,
    own_feature_axis,
    usual_axis,
)
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed

_NUM_LAYERS = 8  # that are tried, the last first: attention over time, channels and space has six


def axis_of_features(
    model: nn.Module,
    sample: Tensor,
    *,
    module: nn.Module,
    returned: Callable[[Any], Tensor | None],
    shape: Sequence[int],
    layout: Layout,
    layers: Sequence[nn.Module],
) -> int | None:
    """The axis of the features in what a module returns; None if it is not to be told.

    The size of the last layer settles it if no axis but the usual one of such a layer is that long; so does that of
    another layer of the module if no axis fits any other. Otherwise the layers of the module are run with their first
    feature changed, the last first, until one of them tells.

    Args:
        model: run in `eval()`, and left as it was.
        sample: what it takes.
        module: whose output it is.
        returned: the tensor in question of what the module returned.
        shape: of that tensor.
        layout: of it.
        layers: with weights, that were called before the module returned, the last first.
    """
    axes = axes_of_features(shape, layout)
    if not layers or len(axes) < 2:
        return axes[0]
    inside = set(module.modules())
    layers = ([layer for layer in layers if layer in inside] or layers)[:_NUM_LAYERS]
    long = {layer: as_long_as_features(shape, layout, layer) for layer in layers}
    by_size = {axis for axes in long.values() for axis in axes}
    for layer in layers if len(by_size) == 1 else layers[:1]:
        if long[layer] == [usual := usual_axis(shape, layout, layer)]:
            return usual
    is_seen = False
    for layer in layers:
        found = axes_by_change(model, sample, layer=layer, returned=returned, module=module, candidates=axes)
        if len(found) == len(axes):
            continue
        is_seen = True
        for fitting in (found, found & by_size):
            if len(fitting) == 1:
                return fitting.pop()
    if len(by_size) == 1:
        return by_size.pop()
    return None if is_seen and by_size else feature_axis(shape, layout, layers[0])  # of neurons that never fire


def axes_by_change(
    model: nn.Module,
    sample: Tensor,
    *,
    layer: nn.Module,
    returned: Callable[[Any], Tensor | None],
    module: nn.Module,
    candidates: Sequence[int],
) -> set[int]:
    """The axes along which a module's output changes at few places alone if the layer's first feature does.

    That is at the first place; if no axis is like that, at some places and not at all of them.

    Args:
        model: run in `eval()`, and left as it was.
        sample: what it takes.
        layer: the last with weights before the output.
        returned: the tensor in question of what the module returned.
        module: whose output it is.
        candidates: the axes.

    Returns:
        Those of the candidates that fit: none if the change is seen all over, all if it is not seen at all.
    """
    before = _outputs(model, sample, module, returned)
    is_changed = torch.zeros_like(before[0], dtype=torch.bool)
    for shift in (-1.0, 1.0):
        with hooked([(layer, _shifting(layer, shift))]):
            after = _outputs(model, sample, module, returned)
        for a, b in zip(before, after, strict=True):
            is_changed |= a != b
    if not is_changed.any():
        return set(candidates)
    by_axis = {axis: is_changed.movedim(axis, 0).flatten(1).any(1) for axis in candidates}
    at_first = {axis for axis, changed in by_axis.items() if len(changed) > 1 and not changed[1:].any()}
    return at_first or {axis for axis, changed in by_axis.items() if not changed.all()}


def _outputs(
    model: nn.Module, sample: Tensor, module: nn.Module, returned: Callable[[Any], Tensor | None]
) -> list[Tensor]:
    outputs: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = returned(output)
        assert tensor is not None
        outputs.append(tensor.clone())

    with undisturbed(model, sample), torch.no_grad(), hooked([(module, note)]), running_by("reference", model):
        reset_states(model)
        model.eval()
        model(sample.clone())
    return outputs


def _shifting(layer: nn.Module, shift: float) -> Callable[..., Any]:
    """A hook that moves the first feature far beyond all others."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is not None:
            first = tensor.select(own_feature_axis(layer, tensor), 0)
            first.add_(shift * (100 + 10 * tensor.abs().max()))
        return output

    return hook
