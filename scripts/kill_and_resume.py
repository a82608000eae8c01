"""Kill trainings at random moments, resume them until they finish, and compare them with undisturbed ones.

    python scripts/kill_and_resume.py [--kills 50] [--seed 0]

The promise is bit-equal results, and rows without gaps or duplicates (docs/reliability.md). The script prints a line
for each kind of kill and a count, and exits with 1 if anything differs. It takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from shortback.recipes.load import load_recipe
from shortback.recipes.schema import Recipe

SETTINGS = [
    "data.train_images=60",
    "data.num_workers=0",
    "model={name: resnet20, width: 0.25, num_steps: 2}",
    "train={epochs: 3, batch_size: 20, compile: off, precision: fp32, checkpoint_every: 1, log_every: 1}",
    "health.every=2",
    "method=evolutionary",
    "compare=null",
]
SAVED = ("net", "optimizer", "random")

# Function calls at which a run is killed: owner and name of the function, and the first and last call to choose from.
CALLS = {
    "within a checkpoint's rename": ("shortback.files:os", "replace", 2, 9),
    "within validation": ("shortback.training.engine", "evaluate", 1, 2),
    "at the end of a run": ("shortback.runs.train", "save_weights", 1, 1),
    "while a row is written": ("shortback.training.loggers:JsonLines", "log", 2, 12),
}


def recipe() -> Recipe:
    return load_recipe("quickstart", settings=SETTINGS)


# --- One process, killed after a time or in the middle of something.


def _train(out: Path, arm: Callable[[], None]) -> None:
    from shortback.runs.train import train_recipe

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    arm()
    train_recipe(recipe(), out, resume=True, say=lambda line: None)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class After:
    """Makes the process kill itself after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> None:
        timer = threading.Timer(self.seconds, _die)
        timer.daemon = True
        timer.start()


class AtCall:
    """Makes the process kill itself at the n-th call of a function, before or after it."""

    def __init__(self, owner: str, name: str, count: int, *, before: bool) -> None:
        self.owner, self.name, self.count, self.before = owner, name, count, before

    def __call__(self) -> None:
        owner = owner_of(self.owner)
        original, calls = getattr(owner, self.name), []

        def dying(*arguments, **settings):
            calls.append(None)
            if len(calls) == self.count and self.before:
                _die()
            result = original(*arguments, **settings)
            if len(calls) == self.count:
                _die()
            return result

        setattr(owner, self.name, dying)


def owner_of(words: str) -> Any:
    """A module, or with `module:name` the attribute of that name."""
    module, _, name = words.partition(":")
    owner = importlib.import_module(module)
    return getattr(owner, name) if name else owner


class Fine:
    def __call__(self) -> None:
        pass


def run(out: Path, arm: Callable[[], None]) -> int | None:
    process = CONTEXT.Process(target=_train, args=(out, arm))
    process.start()
    process.join()
    return process.exitcode


# --- What must be equal.


def differences(whole: Path, cut: Path) -> list[str]:
    """Name the parts of a killed run that differ from the undisturbed one."""
    found = []
    a, b = (load_file(path / "model.safetensors") for path in (whole, cut))
    if not all(torch.equal(a[name], b[name]) for name in a):
        found.append("weights")
    a, b = (torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (whole, cut))
    if not all(_equal(a[key], b[key]) for key in SAVED):
        found.append("checkpoint")
    if _rows(whole) != _rows(cut):
        found.append("rows")
    a, b = (json.loads((path / "summary.json").read_text()) for path in (whole, cut))
    if any(a[key] != b[key] for key in ("test_accuracy", "best_val_accuracy", "steps", "epochs")):
        found.append("summary")
    return found


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def _rows(run: Path) -> list[dict]:
    """All rows, without the fields that measure time."""
    timed = ("seconds", "images_per_second", "step_seconds")
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


# --- By the command line: two processes, ablations, a full disk.


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "shortback", *arguments]


def settings() -> list[str]:
    return [part for setting in SETTINGS for part in ("-s", setting)]


def torchrun(out: Path) -> list[str]:
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "shortback", "train"]
    return [*together, "quickstart", *settings(), "--out", str(out), "--resume"]


def ablation(out: Path) -> list[str]:
    options = ["--methods", "vanilla,evolutionary", "--seeds", "1", "--jobs", "2", "--out", str(out)]
    return command("ablate", "quickstart", *settings(), *options)


def call(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def kill_in(arguments: list[str], seconds: float, whom: str, generator: random.Random) -> None:
    """Start a command; some seconds later, kill `whom`: its parent process, one child, or all of them."""
    process = subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    family = _descendants(process.pid)
    if whom == "parent" or not family:
        victims = [process.pid]
    else:
        victims = [generator.choice(family)] if whom == "child" else [process.pid, *family]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if whom != "parent":
        time.sleep(0.5)
        for pid in [process.pid, *_descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    process.wait()


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        direct = [int(text) for text in children.read_text().split()]
    except OSError:
        return []
    return direct + [grandchild for child in direct for grandchild in _descendants(child)]


def on_a_full_disk(base: Path) -> str:
    """Start a run on a disk that becomes full, give the disk more room, and resume; return how it went."""
    disk = base / "disk"
    disk.mkdir()
    mounted = call(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)])
    if mounted.returncode:
        return "not tried: no file system can be mounted here"
    try:
        filler = disk / "filler"
        filler.write_bytes(b"0" * 2_400_000)
        arguments = command("train", "quickstart", *settings(), "--out", str(disk / "run"))
        failed = call(arguments)
        if failed.returncode == 0:
            return "the disk was not full"
        filler.unlink()
        call(["mount", "-o", "remount,size=64m", str(disk)])
        done = call([*arguments, "--resume"] if (disk / "run" / "recipe.yaml").exists() else arguments)
        if done.returncode:
            return f"could not go on: {done.stderr[-300:]}"
        wrong = differences(base / "whole", disk / "run")
        said = failed.stderr.strip().splitlines()[-1][:100] if failed.stderr.strip() else "nothing"
        return f"differs: {', '.join(wrong)}" if wrong else f"bit-equal after more room; it had said: {said}"
    finally:
        call(["umount", str(disk)])


def in_one_process(base: Path, kills: int, generator: random.Random) -> tuple[int, int]:
    """Kill a run of one process at all kinds of places; return the numbers of kills and of runs that differ."""
    started = time.monotonic()
    assert run(base / "whole", Fine()) == 0
    seconds = time.monotonic() - started

    def at_call(owner: str, name: str, first: int, last: int) -> Callable[[], AtCall]:
        return lambda: AtCall(owner, name, generator.randint(first, last), before=generator.random() < 0.5)

    places: dict[str, Callable[[], Callable[[], None]]] = {
        "at a random moment": lambda: After(generator.uniform(0.05, seconds)),
        **{name: at_call(*call) for name, call in CALLS.items()},
    }
    different = 0
    for index, (name, make) in enumerate(places.items()):
        share = kills // len(places) + (index < kills % len(places))
        killed = 0
        while killed < share:
            out = base / f"cut{index}-{killed}"
            while killed < share:
                code = run(out, make())
                if code == 0:
                    break
                assert code == -signal.SIGKILL, code
                killed += 1
                if generator.random() < 0.5:
                    break
            assert run(out, Fine()) == 0
            different += report(name, differences(base / "whole", out))
            shutil.rmtree(out)
        print(f"{name}: {killed} kills", flush=True)
    return kills, different


def by_command(base: Path, generator: random.Random) -> tuple[int, int]:
    """Kill processes that a command started; returns the same as `in_one_process`."""
    total = different = 0
    for name, make_command, whom in (
        ("one of two processes", torchrun, "child"),
        ("two processes and their agent", torchrun, "all"),
        ("a worker of an ablation", ablation, "child"),
        ("the parent of an ablation", ablation, "parent"),
    ):
        whole, cut = (base / f"{kind}-{whom}-{make_command.__name__}" for kind in ("whole", "cut"))
        started = time.monotonic()
        done = call(without_resume_if_new(make_command(whole), whole))
        assert done.returncode == 0, done.stderr
        seconds = time.monotonic() - started
        for _ in range(3):
            kill_in(
                without_resume_if_new(make_command(cut), cut), generator.uniform(0.4, 0.9) * seconds, whom, generator
            )
        done = call(without_resume_if_new(make_command(cut), cut))
        assert done.returncode == 0, done.stderr
        runs = [path.parent.relative_to(whole) for path in whole.rglob("summary.json")]
        different += report(name, [f"{p}: {what}" for p in runs for what in differences(whole / p, cut / p)])
        total += 3
        print(f"{name}: 3 kills", flush=True)
    return total, different


def without_resume_if_new(arguments: list[str], out: Path) -> list[str]:
    """The command, without `--resume` if there is nothing to resume."""
    return arguments if (out / "recipe.yaml").exists() else [part for part in arguments if part != "--resume"]


def report(name: str, wrong: list[str]) -> bool:
    if wrong:
        print(f"  {name}: differs in {', '.join(wrong)}", flush=True)
    return bool(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in one process; others come on top")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    base = Path(tempfile.mkdtemp(prefix="kill-"))
    try:
        counts = [in_one_process(base, options.kills, generator), by_command(base, generator)]
        print(f"a full disk: {on_a_full_disk(base)}")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    kills, different = (sum(each) for each in zip(*counts, strict=True))
    print(f"{kills} kills, {different} runs that ended differently")
    sys.exit(bool(different))


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}
CONTEXT = multiprocessing.get_context("forkserver")

if __name__ == "__main__":
    CONTEXT.set_forkserver_preload(["shortback.runs.train", "torch._dynamo"])
    main()
