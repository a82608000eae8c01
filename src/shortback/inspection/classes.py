"""Which axis of an output `[N, ?, ?]` is of the classes, and which of the steps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.changes import Changes
from shortback.inspection.layout import as_long_as_features, stacked


class StepsOrClassesError(UserError):
    """The samples of an output lie first, and which of its other axes is of the steps is not to be told."""


def axis_of_classes(model: nn.Module, sample: Tensor, *, shape: Sequence[int], layer: nn.Module | None) -> int:
    """1 for an output `[N, K, T]` and 2 for `[N, T, K]`.

    It is the axis along which the output changes at one class alone if the first feature of the last layer does; where
    that is not to be seen, the one that is as long as this layer has features.

    Args:
        model: run in `eval()`, and left as it was.
        sample: what it takes.
        shape: of the output.
        layer: the last with weights before it; None if there was none.

    Raises:
        StepsOrClassesError: neither tells.
    """
    if layer is not None:
        by_change = Changes(model, sample, {model: stacked}).axes(model, layer, [1, 2])
        by_size = as_long_as_features(shape, "folded", layer)
        for axes in (by_change, set(by_size)):
            if len(axes) == 1:
                return axes.pop()
    raise StepsOrClassesError(
        f"layout='auto': whether the output {list(shape)} of {type(model).__name__} is [N, T, K] or [N, K, T] is not "
        "to be told by running it: say layout='batch_first' or layout='time_last', or have it return [T, N, K]"
    )
