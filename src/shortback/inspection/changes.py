"""Run a network with one feature of a layer changed, and see where outputs change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.backends import running_by
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import first_tensor, own_feature_axis
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed

_SHIFTS = (1.0, -1.0)  # upwards first, which a ReLU passes on everywhere


class Changes:
    """Where outputs of modules change if the first feature of a layer does. Each run is made once for all of them."""

    def __init__(
        self, model: nn.Module, sample: Tensor, watched: Mapping[nn.Module, Callable[[Any], Tensor | None]]
    ) -> None:
        """
        Args:
            model: run in `eval()`, and left as it was.
            sample: what it takes.
            watched: by module, the tensor in question of what it returned.
        """
        self._model, self._sample, self._watched = model, sample, watched
        self._before: dict[nn.Module, list[Tensor]] | None = None
        self._known: dict[tuple[nn.Module, float], dict[nn.Module, list[Tensor]]] = {}

    def axes(self, module: nn.Module, layer: nn.Module, candidates: Collection[int]) -> set[int]:
        """The axes along which a module's output changes at few places alone if the layer's first feature does.

        That is at the first place; if no axis is like that, at some places and not at all of them. One shift is enough
        where it changes one place alone along one axis, and every place along the others.

        Args:
            module: one of those watched.
            layer: before its output, with weights.
            candidates: the axes.

        Returns:
            Those of the candidates that fit: none if the change is seen all over, all if it is not seen at all.
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
        """By module, for each axis of its output, at which places along it something changes."""
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
        with undisturbed(model, self._sample), torch.no_grad(), hooked(hooks), running_by("reference", model):
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
    """A hook that has a layer return a copy whose first feature is far beyond all others.

    What it returned stays as it is: it may be a parameter, or what the network needs elsewhere.
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
    """What a module returned, with another first tensor: tuples and lists are made anew."""
    if isinstance(output, Tensor):
        return tensor
    first = _with_first(output[0], tensor)
    if isinstance(output, list):
        new = copy.copy(output)
        new[0] = first
        return new
    parts = (first, *output[1:])
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
