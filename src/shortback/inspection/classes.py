"""Which axis of an output `[N, ?, ?]` holds the classes, and which the time steps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.changes import Changes
from shortback.inspection.layout import as_long_as_features, stacked


class StepsOrClassesError(UserError):
    """An output has its samples first, and which of its other axes holds the time steps cannot be determined."""


def axis_of_classes(model: nn.Module, sample: Tensor, *, shape: Sequence[int], layer: nn.Module | None) -> int:
    """The axis of the classes: 1 for an output `[N, K, T]`, 2 for `[N, T, K]`.

    When the first feature of the last layer is changed, the output changes for a single class along this axis. If that
    does not show, it is the axis as long as the layer's number of features.

    Args:
        model: run in `eval()` and left as it was.
        sample: an input of the model.
        shape: shape of the output.
        layer: the last layer with weights before the output; None if there was none.

    Raises:
        StepsOrClassesError: neither decides.
    """
    if layer is not None:
        by_change = Changes(model, sample, {model: stacked}).axes(model, layer, [1, 2])
        by_size = as_long_as_features(shape, "folded", layer)
        for axes in (by_change, set(by_size)):
            if len(axes) == 1:
                return axes.pop()
    raise StepsOrClassesError(
        f"layout='auto': whether the output {list(shape)} of {type(model).__name__} is [N, T, K] or [N, K, T] cannot "
        "be determined by running it: use layout='batch_first' or layout='time_last', or have it return [T, N, K]"
    )
