"""Find the axis of the features by running the network where sizes leave it open.

Sizes do not decide for images of width `C`, for blocks that end with a concatenation, and for blocks
whose last layer makes a gate instead of the features, such as channel attention (ECA) and temporal attention.
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

_NUM_LAYERS = 8  # to try at most, the last first: attention over time, channels and space has six


class Place(NamedTuple):
    """A module whose output has features on an axis to be found.

    Attributes:
        module: the module.
        returned: selects the tensor in question from the module's output.
        shape: shape of that tensor.
        layout: layout of that tensor.
        layers: the layers with weights that were called before the module returned, the last first.
    """

    module: nn.Module
    returned: Callable[[Any], Tensor | None]
    shape: Sequence[int]
    layout: Layout
    layers: Sequence[nn.Module]

    def tried(self) -> list[nn.Module]:
        """The layers to try: those inside the module, or those called before it if it has none.

        Norms of whole images, `nn.LayerNorm([C, H, W])`, are left out: their weight does not tell the feature axis.
        """
        layers = [m for m in self.layers if not (isinstance(m, nn.LayerNorm) and len(m.normalized_shape) > 2)]
        inside = set(self.module.modules())
        return ([layer for layer in layers if layer in inside] or layers)[:_NUM_LAYERS]


def find_feature_axes(model: nn.Module, sample: Tensor, places: Mapping[str, Place]) -> dict[str, int | None]:
    """The feature axis of what each place returns; None if it cannot be determined.

    The size of the last layer decides if the only axis of that length is the usual feature axis of such a layer; if the
    layers fit a single axis between them, any layer may decide in this way. Otherwise the layers are run with their
    first feature changed, the last first, until one of them decides. If the changes are visible everywhere, it is the
    usual axis of a map of convolutions, provided its size fits, or the only axis whose size fits.

    Args:
        model: run in `eval()` and left as it was.
        sample: an input of the model.
        places: places by name.
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
    long = _axes_by_size(place, layers)
    by_size = {axis for axes in long.values() for axis in axes}
    for layer in layers if len(by_size) == 1 else layers[:1]:
        if long[layer] == [usual := usual_axis(place.shape, place.layout, layer)]:
            return usual
    return None


def _by_change(changes: Changes, place: Place) -> int | None:
    axes, layers = axes_of_features(place.shape, place.layout), place.tried()
    long = _axes_by_size(place, layers)
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
        axis = by_size.pop()  # the features of a map come before or after its axes of space, never between
        return None if is_seen and usual is not None and axis != axes[-1] else axis
    # No change was visible (neurons never fire), or no layer is as wide as an axis: take the likeliest one.
    return None if is_seen and by_size else feature_axis(place.shape, place.layout, layers[0])


def _axes_by_size(place: Place, layers: Sequence[nn.Module]) -> dict[nn.Module, list[int]]:
    """By layer, the axes whose length is its number of output features."""
    return {layer: as_long_as_features(place.shape, place.layout, layer) for layer in layers}
