"""How much memory and time does a training step take at each setting of `memory`, relative to SpikingJelly's?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gates
from harness import Settings, compare, run
from peaks import peaks_of
from shortback.choices import Memory
from workloads import Variant, Workload, training_side, workloads

CASES = Workload(model="resnet20", batch_size=64), Workload(model="resnet18", batch_size=32)
OURS: tuple[Memory, ...] = ("fast", "balanced", "small")


def measure(settings: Settings) -> dict[str, Any]:
    """Measure peak bytes, bytes saved for backward and seconds, of ours at every setting and of SpikingJelly.

    SpikingJelly runs as in its examples (float32, contiguous), tuned (our precision, channels-last), and tuned with
    level 1 of its memory optimisation, which keeps the inputs of its blocks as bits and recomputes them in backward.
    """
    tuned = Variant(library="spikingjelly", device=settings.device, compile="off")
    theirs = {
        "spikingjelly as run": replace(tuned, precision="fp32", channels_last=False),
        "spikingjelly tuned": tuned,
        "spikingjelly tuned, level 1": replace(tuned, recompute=True),
    }
    ours = {name: Variant(device=settings.device, memory=name) for name in OURS}
    variants = ours | theirs
    cases = []
    for work in workloads(settings, *CASES):
        default = work.network().memory
        memory = peaks_of(work, variants, settings, over=[(a, b) for a in OURS for b in theirs])
        time = compare(
            [training_side(name, work, variant) for name, variant in variants.items()],
            gate=lambda work=work: gates.reference(work, *ours.values()) | gates.peer(work, "spikingjelly"),
            over=[(a, b) for a in OURS for b in (default, *theirs) if a != b],
            title=f"{work}, time",
            **settings.timing(),
        )
        described = {name: variant.execution().describe() for name, variant in variants.items()}
        cases.append({"case": str(work), "default": default, "execution": described, "memory": memory, "time": time})
    return {"cases": cases}


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "only", "batch_size"))


if __name__ == "__main__":
    main()
