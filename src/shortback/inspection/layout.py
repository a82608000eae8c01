r"""Layouts: how samples and time steps lie in what a network and its modules return.

| layout | a module returns | such as |
|---|---|---|
| `folded` | `[T*N, C, ...]`, step after step; without time `[N, C, ...]` | Shortback; SpikingJelly's containers; ANNs |
| `folded_batch` | `[N*T, C, ...]`, sample after sample | sinabs with squeezed layers |
| `time_first` | `[T, N, C, ...]` | SpikingJelly with `step_mode="m"`, Norse's lifted layers |
| `batch_first` | `[N, T, C, ...]` | sinabs |
| `time_last` | `[N, C, ..., T]` | lava-dl |
| `steps` | `[N, C, ...]`, called once a step | snnTorch, Norse's cells, SpikingJelly with `step_mode="s"` |

The features `C` need not be on the axis shown: see `feature_axis`. `shortback.inspection.detect` finds the layout.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from shortback.choices import Layout, Reduction
from shortback.errors import UserError
from shortback.inspection.trunk import Branched

log = logging.getLogger("shortback")

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def sample_axis(net: nn.Module, x: Tensor, num_samples: int) -> int | None:
    """The axis of an input along which the samples lie; None if they are folded with the steps.

    Args:
        net: a result of `attach` knows the axis. For others it is the second of `[T, N, C, H, W]` and the first of
            other shapes, unless only the other of these two axes is as long as there are samples.
        x: an input of the network.
        num_samples: the number of samples in `x`.
    """
    if isinstance(net, Branched) and net.batch_axis is not None:
        return net.batch_axis if net.num_steps is None else None
    has_time = x.ndim == 5 and not any(isinstance(m, nn.Conv3d) for m in net.modules())
    likely = (1, 0) if has_time else (0, 1)
    return next((axis for axis in likely if axis < x.ndim and x.shape[axis] == num_samples), likely[0])


def leading_axes(layout: Layout) -> int:
    """How many axes of an output, before the features and the rest, hold only samples and steps."""
    return 2 if layout in ("time_first", "batch_first") else 1


def feature_axis(shape: Sequence[int], layout: Layout, layer: nn.Module | None) -> int:
    """The axis of the features by its size; it is kept when the others are averaged over as space.

    Its length is the number of outputs of the last layer, so tokens `[N, L, C]` and images `[N, H, W, C]` are read
    correctly. If several axes are that long, or none, the usual axis of such a layer is chosen: the last for a
    linear layer, the one before the axes of space for a convolution. `shortback.inspection.features` runs the network
    where sizes do not decide.

    Args:
        shape: shape of a module's output.
        layout: layout of that output.
        layer: the last layer with weights that was called; None if there was none.
    """
    if layer is None or len(shape) <= leading_axes(layout) + 1:
        return leading_axes(layout)
    usual, matches = usual_axis(shape, layout, layer), as_long_as_features(shape, layout, layer)
    return usual if usual in matches or not matches else matches[0]


def axes_of_features(shape: Sequence[int], layout: Layout) -> range:
    """The axes on which the features may lie: all but those of samples and steps."""
    return range(leading_axes(layout), len(shape) - (layout == "time_last"))


def usual_axis(shape: Sequence[int], layout: Layout, layer: nn.Module) -> int:
    """The axis of the features if they stay where a layer of this kind returns them."""
    axes = axes_of_features(shape, layout)
    usual = axes[0] if isinstance(layer, nn.GroupNorm) else axes[-1] - _axes_of_space(layer)
    return usual if usual in axes else axes[-1]


def axis_of_a_map(shape: Sequence[int], layout: Layout, layers: Sequence[nn.Module]) -> int | None:
    """The usual feature axis of a map if all layers are convolutions over its axes of space, or its norms; else None.

    A map has two axes of space or more: a single one might hold tokens or time.
    """
    axes = axes_of_features(shape, layout)
    are_of_space = all(isinstance(m, nn.GroupNorm) or _axes_of_space(m) == len(axes) - 1 for m in layers)
    return axes[0] if layers and len(axes) > 2 and are_of_space else None


def as_long_as_features(shape: Sequence[int], layout: Layout, layer: nn.Module) -> list[int]:
    """The axes, except for samples and steps, whose length is a layer's number of output features."""
    return [axis for axis in axes_of_features(shape, layout) if shape[axis] == num_features(layer)]


def own_feature_axis(layer: nn.Module, output: Tensor) -> int:
    """The axis of the features in a layer's own output."""
    space = _axes_of_space(layer)
    if isinstance(layer, nn.GroupNorm | nn.modules.batchnorm._NormBase) and space < 2:
        return 2 if getattr(layer, "step_mode", "s") == "m" else 1  # SpikingJelly's also take [T, N, C, ...]
    return output.ndim - 1 - space


def num_features(layer: nn.Module) -> int | None:
    """How many features a layer with weights returns; None for any other module."""
    if isinstance(layer, nn.RNNBase):
        return (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
    if "weight" not in layer._parameters and _weight_of(layer) is None:  # a block may have out_channels too
        return None
    for name in ("out_channels", "out_features", "num_features", "num_channels"):
        if isinstance(getattr(layer, name, None), int):
            return getattr(layer, name)
    shape = getattr(layer, "normalized_shape", None)
    return shape[-1] if isinstance(shape, tuple) and shape else None


def _axes_of_space(layer: nn.Module) -> int:
    """How many axes follow the features in a layer's output, by its kernel or else by its name, as in `...2d`."""
    weight = _weight_of(layer)
    if weight is not None and weight.ndim > 2:
        return weight.ndim - 2
    named = re.search(r"[123](?=d)", type(layer).__name__)
    return int(named[0]) if named else 0


def _weight_of(layer: nn.Module) -> Tensor | None:
    """The weight of a layer, or the tensor it is computed from under weight norm, spectral norm or pruning.

    The computed weight is never accessed, since that may change the state of a norm.
    """
    parametrizations = getattr(layer, "parametrizations", None)
    if isinstance(parametrizations, nn.ModuleDict) and "weight" in parametrizations:
        return max(parametrizations["weight"].parameters(recurse=False), key=Tensor.numel, default=None)
    own = layer._parameters
    return next((own[name] for name in ("weight", "weight_orig", "weight_v") if name in own), None)


def average_over_space(activation: Tensor, layout: Layout = "folded", *, features: int | None = None) -> Tensor:
    """Average over space: `[T*N, C, ...]` to `[T*N, C]`, `[T, N, C, ...]` to `[T, N, C]`, `[N, C, ..., T]` to `[N, C]`.

    Sums in float32, or float64 for a float64 activation. The result is always a new tensor, since the network may later
    change the activation in place.

    Args:
        features: the axis of `C`; by default the first after those of samples and steps.
    """
    leading = leading_axes(layout)
    features = leading if features is None else features
    axes = [axis for axis in range(leading, activation.ndim) if axis != features]
    dtype = torch.promote_types(activation.dtype, torch.float32)
    if not axes:
        return activation.to(dtype, copy=True)
    return activation.mean(axes, dtype=dtype)


def average_over_time(averages: Tensor, num_samples: int, layout: Layout = "folded") -> Tensor:
    """Average a result of `average_over_space` over time, to `[N, C]`; without time, the values stay the same."""
    return averages if layout in ("time_last", "steps") else by_step(averages, num_samples, layout).mean(0)


def by_step(output: Tensor, num_samples: int, layout: Layout) -> Tensor:
    """A view `[T, N, ...]` of a module's output; `[1, N, ...]` for a single step."""
    match layout:
        case "folded":
            return output.unflatten(0, (-1, num_samples))
        case "folded_batch":
            return output.unflatten(0, (num_samples, -1)).transpose(0, 1)
        case "time_first":
            return output
        case "batch_first":
            return output.transpose(0, 1)
        case "time_last":
            return output.movedim(-1, 0)
        case "steps":
            return output.unsqueeze(0)


def tensor_of(output: Any, which: int | str | None) -> Tensor | None:
    """One tensor of a module's output by its index or key, or the first if `which` is None; None if it is absent."""
    if which is None:
        return first_tensor(output)
    try:
        return first_tensor(output[which])
    except (KeyError, IndexError, TypeError):
        return None


def first_tensor(output: Any) -> Tensor | None:
    """A module's output, or its first element if it is a tuple such as (spikes, state); None if that is no tensor."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def why_not(output: Any, layout: Layout, num_samples: int) -> str | None:
    """Why a module's output does not have the layout; None if it does."""
    tensor = first_tensor(output)
    if tensor is None:
        return f"returns {type(output).__name__}; a branch needs a tensor: use output=... to select one inside"
    shape = tensor.shape
    fits, needed = {
        "folded": (len(shape) >= 2 and shape[0] % num_samples == 0, "[T*N, C, ...] (time-major) or [N, C, ...]"),
        "folded_batch": (len(shape) >= 2 and shape[0] % num_samples == 0, "[N*T, C, ...] (batch-major)"),
        "time_first": (len(shape) >= 3 and shape[1] == num_samples, "[T, N, C, ...]"),
        "batch_first": (len(shape) >= 3 and shape[0] == num_samples, "[N, T, C, ...]"),
        "time_last": (len(shape) >= 3 and shape[0] == num_samples, "[N, C, ..., T]"),
        "steps": (len(shape) >= 2 and shape[0] == num_samples, "[N, C, ...] in every step"),
    }[layout]
    return (
        None if fits else f"returns {list(shape)} for {num_samples} samples; with layout={layout!r} it needs {needed}"
    )


def stacked(output: Any) -> Tensor:
    """A network's output as one tensor: itself, the first of a tuple, or a list over steps stacked to `[T, N, K]`.

    For a dict, its entry `"logits"` is the output.

    Raises:
        ValueError: the output is anything else; the message says what to write instead.
    """
    logits = _main_of(output)
    if isinstance(logits, list) and _are_alike(logits):
        logits = torch.stack(logits)
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 3):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        hint = ""
        if isinstance(logits, Mapping):
            names = ", ".join(map(repr, logits))
            first = next(iter(logits), "...")
            got = f"{got} with {names}" if logits else got
            hint = (
                "; wrap it in a module with def forward(self, x): return self.network(x)"
                f"[{first!r}], or call that entry 'logits'"
            )
        raise UserError(f"the network returns {got}: it must return logits [N, K], or one per step{hint}")
    return logits


def _are_alike(steps: list[Any]) -> bool:
    """Whether there is a step, and all steps are tensors of one shape."""
    return all(isinstance(step, Tensor) for step in steps) and len({step.shape for step in steps}) == 1


def warn_of_steps_in_a_tuple(output: Any) -> None:
    """Warn if a network returns a tuple that looks like an output `[N, K]` for each step: only the first is used.

    There is no warning if the first is binary and another is not: spikes and membranes, say, whose first is right.
    """
    if type(output) is not tuple or len(output) < 2 or not all(isinstance(each, Tensor) for each in output):
        return
    binary = [bool(((each == 0) | (each == 1)).all()) for each in output]
    are_alike = len({each.shape for each in output}) == 1 and output[0].ndim == 2
    if are_alike and (all(binary) or not binary[0]):
        log.warning(
            "the network returns a tuple of %d tensors %s, of which only the first is used as its output: if they "
            "are its outputs at each step, return a list of them, or torch.stack(...)",
            *(len(output), list(output[0].shape)),
        )


def _main_of(output: Any) -> Any:
    """The first element of a tuple and the entry `"logits"` of a dict, however nested."""
    while True:
        if isinstance(output, tuple) and output:
            output = output[0]
        elif isinstance(output, Mapping) and "logits" in output:
            output = output["logits"]
        else:
            return output


def logits_of(output: Any, layout: Layout, reduce: Reduction | None, *, num_steps: int | None = None) -> Tensor:
    """A network's output as logits: `[N, K]`, or `[T, N, K]` if there are steps that are not reduced.

    Args:
        output: a tensor `[N, K]`, `[T, N, K]`, with `batch_first` `[N, T, K]` or with `time_last` `[N, K, T]`; a list
            of one for each step; a tuple that begins with one of these, or a dict with one as `"logits"`.
        layout: layout of the output.
        reduce: how to reduce the steps; None to keep them.
        num_steps: `T` of a network whose output is folded like its modules', `[T*N, K]` or `[N*T, K]`.

    Raises:
        ValueError: the output is anything else.
    """
    logits = stacked(output)
    if logits.ndim == 2 and num_steps is not None:
        batch_major = layout == "folded_batch"
        logits = logits.unflatten(0, (-1, num_steps) if batch_major else (num_steps, -1))
        logits = logits.transpose(0, 1) if batch_major else logits
    elif logits.ndim == 3 and not isinstance(_main_of(output), list):
        logits = logits.permute({"batch_first": (1, 0, 2), "time_last": (2, 0, 1)}.get(layout, (0, 1, 2)))
    if logits.ndim == 2 or reduce is None:
        return logits
    return {"mean": logits.mean, "sum": logits.sum, "last": lambda axis: logits[-1]}[reduce](0)
