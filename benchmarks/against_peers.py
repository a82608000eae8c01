"""How do a training step and an inference compare with SpikingJelly's and snnTorch's?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gates
from harness import Settings, compare, run
from workloads import Library, Variant, Workload, inference_side, training_side, workloads

CASES = [
    Workload(model=model, batch_size=batch_size, num_steps=num_steps)
    for model, batch_size in (("resnet18", 16), ("resnet20", 32))
    for num_steps in (2, 4, 8)
]
PEERS: tuple[Library, ...] = ("spikingjelly", "snntorch")


def measure(settings: Settings) -> dict[str, Any]:
    """Compare ours at its defaults with each peer, as its own examples run it and as tuned by hand.

    "As run" is float32 and contiguous. "Tuned" is in our precision, channels-last, and also contiguous, since
    SpikingJelly's neuron returns contiguous spikes for any input. `compile` adds a comparison of whole compiled models;
    if a peer's does not compile, its result is the error.
    """
    cases = []
    for work in workloads(settings, *CASES):
        agreement = _gate(work, Variant(device=settings.device))
        for job, side in (("training", training_side), ("inference", inference_side)):
            groups = [("neuron", _eager(settings))]
            if settings.compile:
                groups.append(("model", _compiled(settings)))
            for mode, variants in groups:
                figures = compare(
                    [side(name, work, variant, may_fail=mode == "model") for name, variant in variants.items()],
                    title=f"{work}, {job}, compile={mode}",
                    **settings.timing(),
                )
                described = {name: variant.execution().describe() for name, variant in variants.items()}
                cases.append(
                    {"case": str(work), "job": job, "compile": mode, "execution": described}
                    | figures
                    | {"gate": agreement}
                )
    return {"cases": cases}


def _gate(work: Workload, ours: Variant) -> dict[str, float]:
    """Check the peers, and the variant of ours that is timed, against our reference neurons."""
    peers = {f"{library}: {what}": off for library in PEERS for what, off in gates.peer(work, library).items()}
    return peers | gates.reference(work, ours) | gates.inference(work, ours)


def _eager(settings: Settings) -> dict[str, Variant]:
    variants = {"shortback": Variant(device=settings.device)}
    for library in PEERS:
        tuned = Variant(library=library, device=settings.device, compile="off")
        variants |= {
            f"{library} as run": replace(tuned, precision="fp32", channels_last=False),
            f"{library} tuned": tuned,
            f"{library} tuned, contiguous": replace(tuned, channels_last=False),
        }
    return variants


def _compiled(settings: Settings) -> dict[str, Variant]:
    ours = Variant(device=settings.device, compile="model")
    return {"shortback": ours} | {f"{library} tuned": replace(ours, library=library) for library in PEERS}


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "only", "batch_size", "compile"))


if __name__ == "__main__":
    main()
