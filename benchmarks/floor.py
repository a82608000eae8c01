"""What does a training step cost, relative to the same network with a ReLU in place of every neuron?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gates
from harness import Settings, compare, run
from shortback.choices import Compile
from workloads import Variant, Workload, training_side, workloads

CASES = Workload(model="resnet18", batch_size=16), Workload(model="resnet20", batch_size=64)


def measure(settings: Settings) -> dict[str, Any]:
    """Compare ours with the ANN on a batch of `T*N`, in the same precision, memory format and compile mode.

    Ours runs the first convolution of a static image once, the ANN `T` times.
    """
    modes: tuple[Compile, ...] = ("neuron", "model") if settings.compile else ("neuron",)
    cases = []
    for work in workloads(settings, *CASES):
        for mode in modes:
            ours = Variant(device=settings.device, compile=mode)
            variants = {"shortback": ours, "relu": replace(ours, library="relu")}
            figures = compare(
                [training_side(name, work, variant) for name, variant in variants.items()],
                gate=partial(gates.reference, work, ours),
                title=f"{work}, compile={mode}",
                **settings.timing(),
            )
            about = {"case": str(work), "compile": mode, "execution": ours.execution().describe()}
            cases.append(about | figures)
    return {"cases": cases}


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "only", "batch_size", "compile"))


if __name__ == "__main__":
    main()
