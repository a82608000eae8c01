"""How long does the first step of the quickstart wait for a compiler, in a first process and in the next one?"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import Settings, run, seconds, spread

CHILD = "--in-child"
RECIPE = ["compare=null", "method=evolutionary"]
WARM_STEPS = 5


def measure(settings: Settings) -> dict[str, Any]:
    """Measure the wait in a process with an empty cache of compiled code, and in a second one that finds it filled.

    The wait is from the finished imports and data to the end of the first step: building the network, attaching its
    branches, the trainer's measurement at the start of an epoch, one step; minus a warm measurement and a warm step.
    """
    processes: dict[str, list[dict[str, Any]]] = {"empty cache": [], "filled cache": []}
    for _ in range(1 if settings.quick else min(settings.rounds, 3)):
        with tempfile.TemporaryDirectory() as cache:
            for name, measured in processes.items():
                measured.append(_in_child(cache))
                print(f"  {name:12}  waits {measured[-1]['wait']:.2f} s", flush=True)
    return {
        name: {"wait": spread([one["wait"] for one in measured]), "processes": measured}
        for name, measured in processes.items()
    }


def _in_child(cache: str) -> dict[str, Any]:
    temporary = Path(cache) / "tmp"
    temporary.mkdir(exist_ok=True)
    # PyTorch keeps the precompiled header of all kernels in the folder for temporary files, wherever its cache is.
    caches = {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton", "TMPDIR": str(temporary)}
    command = [sys.executable, str(Path(__file__).resolve()), CHILD]
    done = subprocess.run(command, env=os.environ | caches, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure_here() -> dict[str, Any]:
    """Measure in this process, which is a child."""
    from shortback.recipes.load import load_recipe
    from shortback.runs.rehearsal import Rehearsal

    job = Rehearsal(load_recipe("quickstart", settings=RECIPE))
    lap = partial(seconds, device=job.execution.device)
    laps = [lap(job.build), lap(job.begin_epoch), lap(job.step)]
    profile = _phases()
    warm_epoch = lap(job.begin_epoch)
    warm_step = statistics.median(lap(job.step) for _ in range(WARM_STEPS))
    return {
        "wait": sum(laps) - warm_epoch - warm_step,
        **dict(zip(("build", "begin_epoch", "first_step"), laps, strict=True)),
        "warm_begin_epoch": warm_epoch,
        "warm_step": warm_step,
        "profile": profile,
    }


def _phases() -> dict[str, list[float]]:
    """How often each phase of compiling was entered, and its seconds including nested phases; longest first."""
    from torch._dynamo.utils import compilation_time_metrics

    totals = {name: [len(laps), round(sum(laps), 3)] for name, laps in compilation_time_metrics.items()}
    return dict(sorted(totals.items(), key=lambda item: -item[1][1])[:15])


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv)


if __name__ == "__main__":
    if CHILD in sys.argv:
        print(json.dumps(_measure_here()))
    else:
        main()
