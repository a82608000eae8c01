"""Find the axis of the features by a run, where sizes leave it open: images as wide as they have channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.hooks import hooked
from shortback.inspection.layout import first_tensor, own_feature_axis
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed


def axes_by_change(
    model: nn.Module,
    sample: Tensor,
    *,
    layer: nn.Module,
    returned: Callable[[Any], Tensor | None],
    module: nn.Module,
    candidates: Sequence[int],
) -> set[int]:
    """The axes along which a module's output changes at the first place alone if the layer's first feature does.

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
    found = set(candidates)
    for shift in (-1.0, 1.0):
        before = _outputs(model, sample, module, returned)
        with hooked([(layer, _shifting(layer, shift))]):
            after = _outputs(model, sample, module, returned)
        changed = torch.stack([(a != b) for a, b in zip(before, after, strict=True)]).any(0)
        if changed.any():
            found &= {axis for axis in candidates if not changed.narrow(axis, 1, changed.shape[axis] - 1).any()}
    return found


def _outputs(
    model: nn.Module, sample: Tensor, module: nn.Module, returned: Callable[[Any], Tensor | None]
) -> list[Tensor]:
    outputs: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = returned(output)
        assert tensor is not None
        outputs.append(tensor.clone())

    with undisturbed(model, sample), torch.no_grad(), hooked([(module, note)]):
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
