"""Find the axis of the features by a run, where sizes leave it open.

So it is for images as wide as they have channels, for blocks that end with a concatenation, and for those whose last
layer makes a gate and not the features, as channel attention (ECA) and temporal attention do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from shortback.choices import Layout
from shortback.inspection.changes import Changes
from shortback.inspection.layout import (
    as_long_as_features,
    axes_of_features,
    axis_of_a_map,
    feature_axis,
    usual_axis,
)

_NUM_LAYERS = 8  # that are tried, the last first: attention over time, channels and space has six


class Place(NamedTuple):
    """What a module returns.

    Attributes:
        module: whose output it is.
        returned: the tensor in question of what the module returned.
        shape: of that tensor.
        layout: of it.
        layers: with weights, that were called before the module returned, the last first.
    """

    module: nn.Module
    returned: Callable[[Any], Tensor | None]
    shape: Sequence[int]
    layout: Layout
    layers: Sequence[nn.Module]

    def tried(self) -> list[nn.Module]:
        """The layers that may tell: those of the module, or those before it if it has none.

        Not a norm of whole images, `nn.LayerNorm([C, H, W])`, whose weight does not say which axis is of the features.
        """
        layers = [m for m in self.layers if not (isinstance(m, nn.LayerNorm) and len(m.normalized_shape) > 2)]
        inside = set(self.module.modules())
        return ([layer for layer in layers if layer in inside] or layers)[:_NUM_LAYERS]


def find_feature_axes(model: nn.Module, sample: Tensor, places: Mapping[str, Place]) -> dict[str, int | None]:
    """The axis of the features in what each place returns; None if it is not to be told.

    The size of the last layer settles it if no axis but the usual one of such a layer is that long; so does that of
    another layer of the module if no axis fits any other. Otherwise the layers of the module are run with their first
    feature changed, the last first, until one of them tells. Where the change is seen everywhere it is the usual axis
    of a map of convolutions, if it has the size, or the only one that has.

    Args:
        model: run in `eval()`, and left as it was.
        sample: what it takes.
        places: by name.
    """
    found = {name: _by_size(place) for name, place in places.items()}
    left = {name: place for name, place in places.items() if found[name] is None}
    changes = Changes(model, sample, {place.module: place.returned for place in left.values()})
    return found | {name: _by_change(changes, place) for name, place in left.items()}


def _by_size(place: Place) -> int | None:
    axes = axes_of_features(place.shape, place.layout)
    layers = place.tried()
    if not layers or len(axes) < 2:
        return axes[0]
    long = _long_axes(place, layers)
    by_size = {axis for axes in long.values() for axis in axes}
    for layer in layers if len(by_size) == 1 else layers[:1]:
        if long[layer] == [usual := usual_axis(place.shape, place.layout, layer)]:
            return usual
    return None


def _by_change(changes: Changes, place: Place) -> int | None:
    axes, layers = axes_of_features(place.shape, place.layout), place.tried()
    long = _long_axes(place, layers)
    by_size = {axis for axes in long.values() for axis in axes}
    is_seen = False
    for layer in layers:
        found = changes.axes(place.module, layer, axes)
        if len(found) == len(axes):
            continue
        is_seen = True
        for fitting in (found, found & by_size):
            if len(fitting) == 1:
                return fitting.pop()
    usual = axis_of_a_map(place.shape, place.layout, layers)
    if is_seen and usual is not None and usual in next(filter(None, long.values()), []):
        return usual
    if len(by_size) == 1:
        axis = by_size.pop()  # features of a map come before its axes of space or after them, never between
        return None if is_seen and usual is not None and axis != axes[-1] else axis
    # Of neurons that never fire, or of layers none of which is as wide.
    return None if is_seen and by_size else feature_axis(place.shape, place.layout, layers[0])


def _long_axes(place: Place, layers: Sequence[nn.Module]) -> dict[nn.Module, list[int]]:
    """By layer, the axes that are as long as it has outputs."""
    return {layer: as_long_as_features(place.shape, place.layout, layer) for layer in layers}
