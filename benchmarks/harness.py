"""The harness of all benchmarks: median and spread of steps timed in interleaved rounds, after a gate and a warm-up."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from machine import environment

Device = Literal["cpu", "cuda"]
Step = Callable[[], object]

OPTIONS: dict[str, dict[str, Any]] = {
    "device": {"choices": ("cpu", "cuda"), "help": "a GPU if there is one, by default"},
    "only": {"help": "run only cases whose name contains this"},
    "batch_size": {"type": int, "help": "replaces the batch size of every case"},
    "compile": {"action": "store_true", "help": "also whole compiled models, each of which takes minutes to compile"},
    "data": {"type": Path, "help": "folder of CIFAR-10 as images"},
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a benchmark.

    Args:
        quick: use small sizes, to see that the benchmark works; its figures mean nothing.
        rounds: rounds of timing, each with one step of every side.
        warmup: steps of every side before timing.
        device, only, batch_size, compile, data: see `OPTIONS`; a benchmark uses only some of them.
    """

    quick: bool = False
    rounds: int = 9
    warmup: int = 3
    device: Device = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")
    only: str = ""
    batch_size: int | None = None
    compile: bool = False
    data: Path | None = None

    def asks_for(self, case: object) -> bool:
        return self.only in str(case)

    def timing(self) -> dict[str, Any]:
        """The arguments of `compare` that are among the settings."""
        return {"rounds": self.rounds, "warmup": self.warmup, "device": self.device}


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        name: name in the results.
        set_up: builds what is timed, and returns a function that runs one step of it. If a step returns a tensor, it
            must be finite.
        may_fail: whether an error in set-up or warm-up is put into the results instead of being raised.
    """

    name: str
    set_up: Callable[[], Step]
    may_fail: bool = False


class DisagreementError(RuntimeError):
    """The sides compute different results, so their times must not be compared."""


def compare(
    sides: Sequence[Side],
    *,
    rounds: int,
    warmup: int,
    device: Device = "cpu",
    gate: Callable[[], dict[str, float]] | None = None,
    over: Sequence[tuple[str, str]] | None = None,
    title: str = "",
) -> dict[str, Any]:
    """Time the steps of several sides in turn, A B A B, and the ratios between sides.

    Args:
        sides: are built, and timed in every round, in this order.
        rounds: number of rounds; each times one step of every side.
        warmup: untimed steps of every side, which include compilation.
        device: synchronised before the clock is read.
        gate: runs first, raises `DisagreementError` if outputs differ, and returns the differences.
        over: pairs of names whose ratio is taken; by default the first side over each other one.
        title: printed before the figures.

    Returns:
        `sides`: by name the `spread` of its seconds, or the error under `failed`; `over`: by pair, `"A / B"`, the ratio
        of the medians, and the median and quartiles of the ratios by round; `gate`: the differences it returned.
    """
    agreement = gate() if gate else {}
    torch.compiler.reset()  # a process keeps only a limited number of graphs per `forward`
    steps: dict[str, Step] = {}
    failed: dict[str, dict[str, str]] = {}
    for side in sides:
        try:
            steps[side.name] = side.set_up()
            for _ in range(warmup):
                _check_finite(side.name, steps[side.name]())
        except Exception as error:
            if not side.may_fail:
                raise
            steps.pop(side.name, None)
            failed[side.name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            samples[name].append(seconds(step, device=device))
    pairs = over if over is not None else [(sides[0].name, side.name) for side in sides[1:]]
    result = {
        "sides": {
            side.name: spread(samples[side.name]) if side.name in samples else failed[side.name] for side in sides
        },
        "over": {f"{a} / {b}": _ratio(samples[a], samples[b]) for a, b in pairs if a in samples and b in samples},
        "gate": agreement,
    }
    print("\n".join(_lines(title, result)), flush=True)
    return result


def seconds(step: Step, *, device: Device = "cpu") -> float:
    """The seconds that a step takes, including its work on a GPU."""
    _wait_for(device)
    start = time.perf_counter()
    step()
    _wait_for(device)
    return time.perf_counter() - start


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """The median, the quartiles and the samples themselves."""
    quartiles = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [*samples] * 3
    return {"median": quartiles[1], "quartiles": [quartiles[0], quartiles[2]], "samples": list(samples)}


def run(
    measure: Callable[[Settings], dict[str, Any]],
    argv: Sequence[str] | None,
    *,
    takes: Sequence[str] = (),
    draw: Callable[[dict[str, Any], Path], None] | None = None,
) -> None:
    """The `main` of a benchmark: read the command line, measure, and write the results with settings and environment.

    Args:
        measure: answers the question that its module's docstring begins with.
        argv: command-line arguments; those of this process if None.
        takes: the `OPTIONS` that the benchmark uses.
        draw: plots the results to a PNG beside the JSON.
    """
    name, question = Path(inspect.getfile(measure)).stem, (inspect.getmodule(measure).__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog=f"bench {name}", description=question)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that the benchmark works")
    parser.add_argument("--rounds", type=int, help="rounds of timing; 9, or 2 with --quick")
    for option in takes:
        parser.add_argument(f"--{option.replace('_', '-')}", **OPTIONS[option])
    options = {key: value for key, value in vars(parser.parse_args(argv)).items() if value is not None}
    out: Path | None = options.pop("out", None)
    if options["quick"]:
        options = {"rounds": 2, "warmup": 1, **options}
    settings = Settings(**options)
    started = environment()
    results = measure(settings)
    if results.get("cases") == []:
        parser.error(f"--only {settings.only!r} is part of no case's name")
    report = {
        "benchmark": name,
        "question": question,
        "settings": asdict(settings),
        "environment": started,
        "results": results,
    }
    if out is not None:
        write(out, report)
        if draw is not None:
            draw(results, out.with_suffix(".png"))


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, with each list of numbers on one line."""
    text = json.dumps(report, indent=2, default=str)
    text = re.sub(r"\[\s+([^\[\]{}]+?)\s+\]", lambda match: "[" + re.sub(r"\n\s+", " ", match[1]) + "]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def _check_finite(name: str, value: object) -> None:
    if isinstance(value, Tensor) and not value.isfinite().all():
        raise DisagreementError(f"{name}: a step returned a value that is not finite")


def _ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    by_round = spread([one / other for one, other in zip(a, b, strict=True)])
    return {
        "of_medians": statistics.median(a) / statistics.median(b),
        "by_round": {key: by_round[key] for key in ("median", "quartiles")},
    }


def _lines(title: str, result: dict[str, Any]) -> list[str]:
    """The figures as lines of text."""
    lines = [title] if title else []
    width = max(map(len, (*result["sides"], *result["over"])))
    for name, side in result["sides"].items():
        if "failed" in side:
            lines.append(f"  {name:{width}}  failed: {side['failed']}")
        else:
            low, high = side["quartiles"]
            lines.append(f"  {name:{width}}  {side['median'] * 1e3:9.2f} ms  ({low * 1e3:.2f} to {high * 1e3:.2f})")
    for pair, ratio in result["over"].items():
        low, high = ratio["by_round"]["quartiles"]
        lines.append(f"  {pair:{width}}  {ratio['of_medians']:9.3f}     (by round {low:.3f} to {high:.3f})")
    return lines


def _wait_for(device: Device) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
