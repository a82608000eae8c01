r"""Find how time runs through a network by running it on a batch, on that batch in reverse, and on both at once.

Samples do not affect each other, so for the batch $[x, x']$ a module returns its outputs for $x$ and for $x'$, joined.
The axis and order of that join are the module's layout; the axis along which the inputs had to be joined is the sample
axis. Sizes decide most cases. If two layouts would have the same sizes, the values decide; if the values say nothing,
for example because neurons never fire, a stronger input is tried, and batch norm on the statistics of the batch. For a
network that draws random numbers, as for rate coding, only the sizes can tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from shortback.choices import Layout
from shortback.errors import UserError
from shortback.inspection.classes import axis_of_classes
from shortback.inspection.hooks import hooked
from shortback.inspection.layer_calls import LayerCalls
from shortback.inspection.layout import LAYOUTS, stacked, tensor_of
from shortback.inspection.probes import probes, set_norms
from shortback.inspection.repeatable import why_not_repeatable
from shortback.inspection.reset import REMEMBERS, reset_states
from shortback.inspection.untouched import undisturbed

_NEGLIGIBLE = 1e-5  # error relative to the spread of the values that rounding may cause
_MAX_ERROR_RATIO = 10  # a layout with this many times the smallest error is ruled out
_TOLERABLE = 0.1  # largest error relative to the spread: rounding may make a few neurons fire
_NUM_POSITIONS = 64  # compared beyond the first two axes

_OUTPUT = object()  # key of the network's output; strings are names of modules

_Key = Any  # a module's name, or _OUTPUT


@dataclass(frozen=True)
class Found:
    """The result of `find_layouts`.

    Attributes:
        batch_axis: sample axis of the input; None if its number of axes decides, as for a `SpikingNetwork`.
        modules: layouts by module name. A module that is called once, with the samples on its first axis, is `folded`,
            whether it has a single step or time on another axis, which is then averaged over like space.
        undecided: by module name, why it has no layout.
        output: the layout of the network's output.
    """

    batch_axis: int | None
    modules: dict[str, Layout]
    undecided: dict[str, str]
    output: Layout


def find_layouts(
    model: nn.Module,
    sample: Tensor,
    modules: dict[str, nn.Module],
    *,
    num_steps: int | None = None,
    which: Mapping[str, int | str | None] | None = None,
) -> Found:
    """Find the layouts of what the modules return and of the network's output; the network is left as it was.

    Args:
        model: any network.
        sample: an input batch of the network.
        modules: modules by name.
        num_steps: `T`, for a network whose input and output are folded, like its modules'.
        which: by module name, the index or key of the tensor to look at if it returns several; else the first.

    Raises:
        ValueError: the sample axis or the layout of the output cannot be determined; `num_steps` does not fit.
        StepsOrClassesError: the output's first axis holds the samples, and whether the steps follow is unknown.
    """
    ways = _ways_to_join(sample, num_steps)
    errors: dict[str, _Errors] = {}
    alone = _Trace()
    with undisturbed(model, sample), torch.no_grad():
        model.eval()
        for x, norms_train in probes(sample):
            set_norms(model, training=norms_train)
            alone = _trace(model, modules, x, which)
            for name, way in list(ways.items()):
                try:
                    reverse, both = (_trace(model, modules, change(x), which) for change in (way.reverse, way.double))
                except Exception:  # the network's own code may raise anything on an input it does not accept
                    del ways[name]
                    errors.pop(name, None)
                    continue
                compared = _compare(alone, reverse, both, num_samples=way.num_samples(x))
                errors[name] = _keep_worst(errors.get(name, {}), compared)
            if _is_settled(errors):
                break
    found, reason = _only_way(errors), None
    if found is None or not all(map(_plausible, errors[found].values())):
        reason = why_not_repeatable(model, sample)
        if reason == "draws":  # the values say nothing then, but the sizes may
            errors = {way: {k: dict.fromkeys(joins, 0.0) for k, joins in e.items()} for way, e in errors.items()}
            found = _only_way(errors)
    if found is None:
        if reason == "remembers":
            raise UserError(f"layout='auto': the same input gave two outputs of {type(model).__name__}: {REMEMBERS}")
        if reason == "draws":
            raise UserError(
                f"layout='auto': {type(model).__name__} draws random numbers in eval(), as rate coding does, so how "
                f"time and samples lie in its output {list(alone.logits_shape)} cannot be determined by running it: "
                f"use layout={' or '.join(map(repr, LAYOUTS))}, or use a batch size other than the number of steps"
            )
        alike = " (its values are the same for all samples: nothing fires on the way)" if alone.is_constant() else ""
        raise UserError(
            f"layout='auto': how time and samples lie in the input {list(sample.shape)} of {type(model).__name__}, and "
            f"in its output {list(alone.logits_shape)}{alike}, cannot be determined by running it: use layout="
            f"{' or '.join(map(repr, LAYOUTS))}"
        )
    result = _conclude(errors[found], ways[found], reason)
    if len(alone.logits_shape) == 3 and result.output == "folded":
        axis = axis_of_classes(model, sample, shape=alone.logits_shape, layer=alone.last_layer)
        result = replace(result, output="time_last" if axis == 1 else "batch_first")
    return result


@dataclass(frozen=True)
class _Way:
    """One way in which the samples may lie in the input: along an axis, or in an order of folded rows."""

    axis: int
    reverse: Callable[[Tensor], Tensor]
    double: Callable[[Tensor], Tensor]
    num_samples: Callable[[Tensor], int]


def _ways_to_join(sample: Tensor, num_steps: int | None) -> dict[str, _Way]:
    if num_steps is None:
        return {
            f"axis {axis}": _Way(
                axis,
                lambda x, axis=axis: x.flip(axis),
                lambda x, axis=axis: torch.cat([x, x.flip(axis)], axis),
                lambda x, axis=axis: x.shape[axis],
            )
            for axis in range(min(2, sample.ndim - 1))
        }
    if num_steps < 1 or len(sample) % num_steps:
        raise UserError(f"num_steps={num_steps}: does not divide the {len(sample)} rows of the sample")

    def folded(
        change: Callable[[Tensor, int], Tensor], sizes: tuple[int, int], axis: int
    ) -> Callable[[Tensor], Tensor]:
        return lambda x: change(x.unflatten(0, sizes), axis).flatten(0, 1)

    num_samples = len(sample) // num_steps

    def flip(x: Tensor, axis: int) -> Tensor:
        return x.flip(axis)

    def double(x: Tensor, axis: int) -> Tensor:
        return torch.cat([x, x.flip(axis)], axis)

    return {
        order: _Way(0, folded(flip, sizes, axis), folded(double, sizes, axis), lambda x: num_samples)
        for order, sizes, axis in (("folded", (num_steps, -1), 1), ("folded_batch", (-1, num_steps), 0))
    }


@dataclass
class _Trace:
    """What modules returned in a forward pass: for each call, a part that is enough to compare."""

    outputs: dict[_Key, list[Tensor]] = field(default_factory=dict)
    logits_shape: Sequence[int] = ()
    last_layer: nn.Module | None = None

    def is_constant(self) -> bool:
        """Whether all values of the output are equal."""
        output = self.outputs[_OUTPUT][0]
        return bool((output == output.flatten()[:1]).all())


def _trace(
    model: nn.Module,
    modules: dict[str, nn.Module],
    x: Tensor,
    which: Mapping[str, int | str | None] | None = None,
) -> _Trace:
    trace, which = _Trace(), which or {}

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = tensor_of(output, which.get(name))
            trace.outputs.setdefault(name, []).extend([] if tensor is None else [_part(tensor)])

        return note

    with hooked((module, hook(name)) for name, module in modules.items()), LayerCalls.of(model) as calls:
        reset_states(model)
        logits = stacked(model(x.clone()))
    trace.outputs[_OUTPUT] = [_part(logits)]
    trace.logits_shape, trace.last_layer = logits.shape, calls.last
    return trace


def _part(output: Tensor) -> Tensor:
    """A copy of some positions of every sample and step, `[A, B, P]` in any layout."""
    if output.ndim < 3:
        return output.clone()
    rest = output.flatten(2)
    return rest[:, :, :: 1 + rest.shape[2] // _NUM_POSITIONS].clone()


_Errors = dict[_Key, dict[Layout, float]]


def _compare(alone: _Trace, reverse: _Trace, both: _Trace, *, num_samples: int) -> _Errors:
    """By key and layout, how far the outputs for both batches are from the joined outputs for each."""
    return {
        key: _errors(outputs, reverse.outputs.get(key, []), both.outputs.get(key, []), num_samples)
        for key, outputs in alone.outputs.items()
    }


def _errors(alone: list[Tensor], reverse: list[Tensor], both: list[Tensor], num_samples: int) -> dict[Layout, float]:
    """The largest error over all calls, by layout; several calls that return one step each are `steps`."""
    calls = list(zip(alone, reverse, both, strict=False))
    if not len(alone) == len(reverse) == len(both) or any(a.shape != b.shape or not a.ndim for a, b, _ in calls):
        return {}
    by_call = [_errors_of_call(a, b, c, num_samples, "steps" if len(calls) > 1 else "folded") for a, b, c in calls]
    worst: dict[Layout, float] = {
        layout: max(errors.get(layout, math.inf) for errors in by_call) for layout in (by_call[0] if by_call else ())
    }
    return {layout: error for layout, error in worst.items() if error < math.inf}


def _errors_of_call(a: Tensor, b: Tensor, c: Tensor, num_samples: int, one_step: Layout) -> dict[Layout, float]:
    by_layout: dict[Layout, float] = {}
    num_steps, rest = divmod(len(a), num_samples)
    if num_steps == 1 and not rest:
        by_layout[one_step] = _error([a, b], 0, c)
    elif num_steps and not rest:
        by_layout["folded_batch"] = _error([a, b], 0, c)
        steps = [t.unflatten(0, (num_steps, -1)) for t in (a, b)]
        by_layout["folded"] = _error(steps, 1, c.unflatten(0, (num_steps, -1)) if not len(c) % num_steps else c)
    if a.ndim > 2 and a.shape[1] == num_samples:
        by_layout["time_first"] = _error([a, b], 1, c)
    return by_layout


def _error(parts: list[Tensor], axis: int, both: Tensor) -> float:
    """Mean difference between the joined parts and `both`, relative to the spread; infinite if shapes differ."""
    joined = torch.cat(parts, axis).double()
    if joined.shape != both.shape:
        return math.inf
    difference = (joined - both).abs().mean().item()
    spread = (joined - joined.mean()).abs().mean().item()
    return difference / spread if spread else math.inf if difference else 0.0


def _keep_worst(before: _Errors, now: _Errors) -> _Errors:
    if not before:
        return now
    return {
        key: {layout: max(error, before[key][layout]) for layout, error in errors.items() if layout in before[key]}
        for key, errors in now.items()
        if key in before
    }


def _plausible(errors: dict[Any, float]) -> list[Any]:
    """The keys whose error is tolerable and not far above the smallest."""
    least = min(errors.values(), default=0.0)
    return [k for k, e in errors.items() if e <= min(max(_MAX_ERROR_RATIO * least, _NEGLIGIBLE), _TOLERABLE)]


def _plausible_ways(errors: dict[str, _Errors]) -> list[str]:
    return _plausible({way: min(e[_OUTPUT].values()) for way, e in errors.items() if e[_OUTPUT]})


def _is_settled(errors: dict[str, _Errors]) -> bool:
    ways = _plausible_ways(errors)
    return len(ways) == 1 and all(len(_plausible(joins)) == 1 for joins in errors[ways[0]].values())


def _only_way(errors: dict[str, _Errors]) -> str | None:
    """The only way to join the samples for which the output has one layout; None if there is none, or several."""
    found = _plausible_ways(errors)
    if len(found) > 1:  # e.g. the output is the same for all samples: the modules before it decide
        undecided = {way: sum(not _plausible(joins) for joins in errors[way].values()) for way in found}
        found = [way for way in found if undecided[way] == min(undecided.values())]
    return found[0] if len(found) == 1 and len(_plausible(errors[found[0]][_OUTPUT])) == 1 else None


def _conclude(errors: _Errors, way: _Way, reason: str | None) -> Found:
    values = "are drawn at random" if reason == "draws" else "are alike in all samples and steps"
    layouts: dict[_Key, Layout] = {}
    undecided: dict[_Key, str] = {}
    for name, joins in errors.items():
        match _plausible(joins):
            case [layout]:
                layouts[name] = layout
            case []:
                undecided[name] = "returns nothing that belongs to one sample alone"
            case several:
                undecided[name] = f"may be {' or '.join(several)}: its values {values}"
    output = layouts.pop(_OUTPUT)
    undecided.pop(_OUTPUT, None)
    return Found(way.axis, layouts, undecided, output)
