"""How close is one LIF layer, forward and backward, to the time that memory bandwidth needs for the bytes it moves?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gates
import shortback as sb
from harness import Settings, Side, compare, run

SHAPES = (4, 16, 64, 32, 32), (8, 16, 128, 32, 32)
QUICK_SHAPES = ((2, 2, 8, 8, 8),)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

# Forward reads the current and writes the spikes; backward reads the current and a gradient and writes a gradient.
# A copy reads one tensor and writes one.
TENSORS_MOVED = 5
TENSORS_COPIED = 2


def measure(settings: Settings) -> dict[str, Any]:
    """Compare the neuron with copies of an equally large tensor, in the same rounds, scaled by the bytes each moves.

    `copy` writes into existing memory. A neuron returns new tensors, for which the system provides new pages every time
    if they are large; `clone` also copies into new memory, and so shows the cost of that.
    """
    shapes = QUICK_SHAPES if settings.quick else SHAPES
    names = [(shape, precision) for shape in shapes for precision in PRECISIONS]
    return {"cases": [_measure(settings, *name) for name in names if settings.asks_for(_title(*name))]}


def _measure(settings: Settings, shape: tuple[int, ...], precision: str) -> dict[str, Any]:
    neuron = sb.LIF(shape[0])
    generator = torch.Generator().manual_seed(0)
    current, gradient = (
        torch.randn(shape, generator=generator).flatten(0, 1).to(settings.device, PRECISIONS[precision])
        for _ in range(2)
    )
    x, target = current.clone().requires_grad_(), torch.empty_like(current)

    def forward_and_backward() -> Tensor:
        return torch.autograd.grad(neuron(x), x, gradient)[0]

    figures = compare(
        [
            Side("neuron", lambda: forward_and_backward),
            Side("copy", lambda: partial(target.copy_, current)),
            Side("clone", lambda: current.clone),
        ],
        gate=partial(gates.neuron, neuron, current, gradient),
        title=_title(shape, precision),
        **settings.timing(),
    )
    share = TENSORS_COPIED / TENSORS_MOVED
    over_copy, over_clone = (figures["over"][f"neuron / {name}"]["of_medians"] * share for name in ("copy", "clone"))
    print(f"  over the time bandwidth needs  {over_copy:.2f}, in new memory {over_clone:.2f}", flush=True)
    return {
        "case": _title(shape, precision),
        "over_bandwidth": over_copy,
        "over_bandwidth_in_new_memory": over_clone,
        "bytes": TENSORS_MOVED * current.nbytes,
        "bytes_per_second": TENSORS_COPIED * current.nbytes / figures["sides"]["copy"]["median"],
        **figures,
    }


def _title(shape: tuple[int, ...], precision: str) -> str:
    return f"LIF {list(shape)} {precision}"


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "only"))


if __name__ == "__main__":
    main()
