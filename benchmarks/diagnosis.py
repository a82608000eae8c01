"""How long does a diagnosis take, how much memory, and what share of a run's time does looking at gradients take?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gates
from harness import Settings, Side, compare, run
from peaks import peak_of
from shortback.losses import ShortcutLoss
from shortback.recipes.training_settings import HealthConfig
from shortback.training.watch import GradientWatch
from workloads import Variant, Workload, autocast, batch, build, diagnosis, training_side, workloads

CASES = (Workload(model="resnet20", batch_size=64),)


def measure(settings: Settings) -> dict[str, Any]:
    """Compare a diagnosis, and training's default look at its gradients, with a step; a branch after every block."""
    health = HealthConfig()
    assert health.every is not None
    cases = []
    for work in workloads(settings, *CASES):
        variant = Variant(device=settings.device, branches="blocks")
        sides = [
            training_side("step", work, variant),
            Side("diagnosis", partial(_diagnosis, work, variant)),
            Side("look", partial(_look, work, variant, num_samples=health.samples)),
        ]
        figures = compare(
            sides,
            gate=partial(gates.reference, work, variant),
            over=[("diagnosis", "step"), ("look", "step")],
            title=str(work),
            **settings.timing(),
        )
        peaks = {
            call: peak_of(work, variant, runs=1 if settings.quick else 3, call=call) for call in ("step", "diagnosis")
        }
        medians = {name: figures["sides"][name]["median"] for name in ("step", "look")}
        found = {
            "look_over_run": medians["look"] / (health.every * medians["step"]),
            "peak_over_step": peaks["diagnosis"]["peak_bytes"] / peaks["step"]["peak_bytes"],
        }
        print("\n".join(f"  {name}  {value:.4f}" for name, value in found.items()), flush=True)
        cases.append(
            {"case": str(work), "execution": variant.execution().describe(), **figures, "peaks": peaks, **found}
        )
    return {"cases": cases}


def _diagnosis(work: Workload, variant: Variant) -> Callable[[], object]:
    return partial(diagnosis(work, variant), *batch(work, variant))


def _look(work: Workload, variant: Variant, *, num_samples: int) -> Callable[[], None]:
    net, (x, y) = build(work, variant), batch(work, variant)
    watch = GradientWatch(net, loss=ShortcutLoss(), every=1, num_samples=num_samples)

    def step() -> None:
        with autocast(variant.execution()):
            watch.look(x, y, coefficient=0.5)

    return step


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "batch_size"))


if __name__ == "__main__":
    main()
