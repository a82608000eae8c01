"""Run a network with one feature of a layer changed, and see where outputs change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.backends import with_backend
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import first_tensor, own_feature_axis
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed

_SHIFTS = (1.0, -1.0)  # up first, since a ReLU passes that on everywhere


class Changes:
    """Where module outputs change when a layer's first feature changes; all watched modules share each run."""

    def __init__(
        self, model: nn.Module, sample: Tensor, watched: Mapping[nn.Module, Callable[[Any], Tensor | None]]
    ) -> None:
        """
        Args:
            model: run in `eval()` and left as it was.
            sample: an input of the model.
            watched: by module, a function that selects the tensor in question from the module's output.
        """
        self._model, self._sample, self._watched = model, sample, watched
        self._before: dict[nn.Module, list[Tensor]] | None = None
        self._known: dict[tuple[nn.Module, float], dict[nn.Module, list[Tensor]]] = {}

    def axes(self, module: nn.Module, layer: nn.Module, candidates: Collection[int]) -> set[int]:
        """The axes along which a module's output changes at few positions when a layer's first feature changes.

        These are the axes where only the first position changes; if there are none, those where some but not all
        positions do. The second shift is skipped if the first changes a single position of one axis and every position
        of the others.

        Args:
            module: a watched module.
            layer: a layer with weights, called before the module returns.
            candidates: the axes to choose from.

        Returns:
            The candidates that fit: none if the change is visible everywhere, all if it is not visible at all.
        """
        changed: list[Tensor] = []
        for shift in _SHIFTS:
            seen = self._changed(layer, shift)[module]
            changed = [a | b for a, b in zip(changed, seen, strict=True)] if changed else seen
            partly = {axis for axis in candidates if not changed[axis].all()}
            if len(partly) == 1 and all(changed[axis].sum() == 1 for axis in partly):
                return partly
        if not any(each.any() for each in changed):
            return set(candidates)
        at_first = {axis for axis in candidates if len(changed[axis]) > 1 and not changed[axis][1:].any()}
        return at_first or {axis for axis in candidates if not changed[axis].all()}

    def _changed(self, layer: nn.Module, shift: float) -> dict[nn.Module, list[Tensor]]:
        """By module, for each axis of its output, the positions along that axis at which something changes."""
        if self._before is None:
            self._before = self._outputs()
        if (layer, shift) not in self._known:
            with hooked([(layer, _shifting(layer, shift))]):
                after = self._outputs()
            self._known[layer, shift] = {m: _differences(b, after[m]) for m, b in self._before.items()}
        return self._known[layer, shift]

    def _outputs(self) -> dict[nn.Module, list[Tensor]]:
        outputs: dict[nn.Module, list[Tensor]] = {module: [] for module in self._watched}

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = self._watched[module](output)
            assert tensor is not None
            outputs[module].append(tensor.clone())

        model, hooks = self._model, [(module, note) for module in self._watched]
        with undisturbed(model, self._sample), torch.no_grad(), hooked(hooks), with_backend("reference", model):
            reset_states(model)
            model.eval()
            model(self._sample.clone())
        return outputs


def _differences(before: list[Tensor], after: list[Tensor]) -> list[Tensor]:
    is_changed = torch.zeros_like(before[0], dtype=torch.bool)
    for a, b in zip(before, after, strict=True):
        is_changed |= a != b
    return [is_changed.movedim(axis, 0).flatten(1).any(1) for axis in range(is_changed.ndim)]


def _shifting(layer: nn.Module, shift: float) -> Callable[..., Any]:
    """A hook that replaces a layer's output by a copy whose first feature is far beyond all others.

    The original is not changed in place: it may be a parameter, or be used elsewhere in the network.
    """

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None or not tensor.numel():
            return output
        shifted = tensor.clone()
        first = shifted.select(own_feature_axis(layer, shifted), 0)
        first.add_(shift * (100 + 10 * tensor.abs().max()))
        return _with_first(output, shifted)

    return hook


def _with_first(output: Any, tensor: Tensor) -> Any:
    """A module's output with its first tensor replaced; tuples and lists are copied."""
    if isinstance(output, Tensor):
        return tensor
    first = _with_first(output[0], tensor)
    if isinstance(output, list):
        new = copy.copy(output)
        new[0] = first
        return new
    parts = (first, *output[1:])
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
