"""What do shortcut branches cost in training, in time and memory, and is anything of them left after stripping?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import gates
import shortback as sb
from harness import Settings, Side, compare, run
from peaks import peaks_of
from workloads import Variant, Workload, batch, inference_step, training_side, workloads

CASES = Workload(model="resnet18", batch_size=16), Workload(model="resnet32", batch_size=64)
STAGES_ONLY = {"resnet18"}  # the others have a branch after every block but the last


def measure(settings: Settings) -> dict[str, Any]:
    """Compare training with and without branches, and inference of a stripped network with one that never had any."""
    cases = []
    for work in workloads(settings, *CASES):
        vanilla = Variant(device=settings.device)
        shortcut = replace(vanilla, branches="stages" if work.model in STAGES_ONLY else "blocks")
        variants = {"shortcut": shortcut, "vanilla": vanilla}
        title = f"{work}, branches at {shortcut.branches}"
        training = compare(
            [training_side(name, work, variant) for name, variant in variants.items()],
            gate=partial(gates.reference, work, *variants.values()),
            title=f"{title}, training",
            **settings.timing(),
        )
        memory = peaks_of(work, variants, settings, over=[("shortcut", "vanilla")])
        inference = _inference(settings, work, shortcut, title=f"{title}, inference")
        about = {"case": str(work), "branches": shortcut.branches, "execution": vanilla.execution().describe()}
        cases.append({**about, "training": training, "memory": memory, "inference": inference})
    return {"cases": cases}


def _inference(settings: Settings, work: Workload, variant: Variant, *, title: str) -> dict[str, Any]:
    """Compare a network that had branches with one of the same weights that never had any."""
    x, y = batch(work, variant)
    stripped, never = work.network().to(settings.device), work.network().to(settings.device)
    net = sb.attach(stripped, at=variant.branches or "blocks", sample=x[:2])
    _train_once(net, x, y)
    sb.strip(net)
    never.load_state_dict(stripped.state_dict())

    def step(network: nn.Module) -> Callable[[Tensor], Tensor]:
        return inference_step(variant.execution().prepare(network), variant.execution())

    return compare(
        [Side("stripped", lambda: partial(step(stripped), x)), Side("never attached", lambda: partial(step(never), x))],
        gate=lambda: gates.bit_equal("logits", step(stripped)(x), step(never)(x)),
        title=title,
        **settings.timing(),
    )


def _train_once(net: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    sb.shortcut_loss(net.train()(x), y, coefficient=1.0).total.backward()
    optimizer.step()
    optimizer.zero_grad()


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "only", "batch_size"))


if __name__ == "__main__":
    main()
