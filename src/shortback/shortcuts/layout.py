r"""How time runs through a network, and so through what its modules and the network itself return.

| layout | a module returns | such as |
|---|---|---|
| `folded` | `[T*N, C, ...]`, step after step; without time `[N, C, ...]` | ours; SpikingJelly's containers; an ANN |
| `folded_batch` | `[N*T, C, ...]`, sample after sample | sinabs with squeezed layers |
| `time_first` | `[T, N, C, ...]` | SpikingJelly with `step_mode="m"`, Norse's lifted layers |
| `batch_first` | `[N, T, C, ...]` | sinabs |
| `time_last` | `[N, C, ..., T]` | lava-dl |
| `steps` | `[N, C, ...]`, called once a step | snnTorch, Norse's cells, SpikingJelly with `step_mode="s"` |
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

Layout = Literal["folded", "folded_batch", "time_first", "batch_first", "time_last", "steps"]
Reduction = Literal["mean", "sum", "last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def average_over_space(activation: Tensor, layout: Layout = "folded") -> Tensor:
    """`[T*N, C, ...]` to `[T*N, C]`, `[T, N, C, ...]` to `[T, N, C]`, and so on; `[N, C, ..., T]` to `[N, C]`.

    Summed in float32 whatever the precision of the activation.
    """
    kept = 3 if layout in ("time_first", "batch_first") else 2
    if activation.ndim <= kept:
        return activation
    axes = tuple(range(kept, activation.ndim))
    return activation.mean(axes, dtype=torch.promote_types(activation.dtype, torch.float32))


def average_over_time(features: Tensor, num_samples: int, layout: Layout = "folded") -> Tensor:
    """What `average_over_space` returned to `[N, C]`; without time it comes out as it is."""
    match layout:
        case "folded":
            return features.unflatten(0, (-1, num_samples)).mean(0)
        case "folded_batch":
            return features.unflatten(0, (num_samples, -1)).mean(1)
        case "time_first":
            return features.mean(0)
        case "batch_first":
            return features.mean(1)
        case "time_last" | "steps":
            return features


def first_tensor(output: Any) -> Tensor | None:
    """What a module returned, or the first tensor of it where that is a tuple such as (spikes, state)."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def why_not(output: Any, layout: Layout, num_samples: int) -> str | None:
    """Why what a module returned does not have the layout, or None where it has."""
    tensor = first_tensor(output)
    if tensor is None:
        return f"returns {type(output).__name__}; a branch needs a tensor, or a tuple that begins with one"
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


def logits_of(output: Any, layout: Layout, reduce: Reduction | None) -> Tensor:
    """What a network returned as logits: `[N, K]`, or `[T, N, K]` where nothing is reduced.

    Args:
        output: a tensor `[N, K]`, `[T, N, K]` or, with `batch_first`, `[N, T, K]`; a list of one for each step; or a
            tuple that begins with one of these.
        layout: of the network.
        reduce: over steps; None to leave them.

    Raises:
        ValueError: anything else.
    """
    logits = output
    while isinstance(logits, tuple) and logits:
        logits = logits[0]
    if isinstance(logits, list) and logits and all(isinstance(step, Tensor) for step in logits):
        logits = torch.stack(logits)
    elif isinstance(logits, Tensor) and logits.ndim == 3 and layout == "batch_first":
        logits = logits.transpose(0, 1)
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 3):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network returns {got}: it must return logits, [N, K] or one for each step")
    if logits.ndim == 2 or reduce is None:
        return logits
    return {"mean": logits.mean, "sum": logits.sum, "last": lambda axis: logits[-1]}[reduce](0)
