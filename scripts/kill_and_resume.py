"""Kill trainings at random moments, start them again until they end, and compare them with ones that nobody disturbed.

    python scripts/kill_and_resume.py [--kills 50] [--seed 0]

Bit-equal ends and rows without a gap or a double are what is promised (docs/reliability.md). It prints a line for every
kind of kill and a count, and ends with 1 if anything differs. It takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
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


def recipe() -> Recipe:
    return load_recipe("quickstart", settings=SETTINGS)


# --- One process, killed after a time or in the middle of something.


def _train(out: Path, arm: Callable[[], None]) -> None:
    from shortback.runs.train import train_recipe

    torch.set_num_threads(1)
    arm()
    train_recipe(recipe(), out, resume=True, say=lambda line: None)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class After:
    """Dies so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> None:
        timer = threading.Timer(self.seconds, _die)
        timer.daemon = True
        timer.start()


class AtCall:
    """Dies at the n-th call of a function, before it or after it."""

    def __init__(self, owner: str, name: str, count: int, *, before: bool) -> None:
        self.owner, self.name, self.count, self.before = owner, name, count, before

    def __call__(self) -> None:
        import importlib

        module, _, cls = self.owner.partition(":")
        owner = importlib.import_module(module)
        owner = getattr(owner, cls) if cls else owner
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
    """What of a run that was killed is not what it is in one that was not."""
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
    """All rows but for what they say of time."""
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
    return command("ablate", "quickstart", *settings(), "--methods", "vanilla,evolutionary", "--seeds", "1", "--jobs", "2",
                   "--out", str(out))  # fmt: skip


def call(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def kill_in(arguments: list[str], seconds: float, whom: str, generator: random.Random) -> None:
    """Start a command and kill it, one of its processes or all of them, so many seconds later."""
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
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if whom != "parent":
        time.sleep(0.5)
        for pid in [process.pid, *_descendants(process.pid)]:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
    process.wait()


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        direct = [int(text) for text in children.read_text().split()]
    except OSError:
        return []
    return direct + [grandchild for child in direct for grandchild in _descendants(child)]


def on_a_full_disk(base: Path) -> str:
    """A run on a disk that becomes full, which is then given more room."""
    disk = base / "disk"
    disk.mkdir()
    mounted = call(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)])
    if mounted.returncode:
        return "not tried: no file system can be mounted here"
    try:
        filler = disk / "filler"
        filler.write_bytes(b"0" * 2_400_000)
        arguments = command("train", "quickstart", *settings(), "--out", str(disk / "run"), "--resume")
        arguments.remove("--resume")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in one process; others come on top")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    base = Path(tempfile.mkdtemp(prefix="kill-"))
    failures = 0
    try:
        started = time.monotonic()
        assert run(base / "whole", Fine()) == 0
        seconds = time.monotonic() - started
        places = {
            "at a random moment": lambda: After(generator.uniform(0.05, seconds)),
            "within a checkpoint's rename": lambda: AtCall(
                "shortback.files:os", "replace", generator.randint(2, 9), before=generator.random() < 0.5
            ),
            "within validation": lambda: AtCall(
                "shortback.training.engine", "evaluate", generator.randint(1, 2), before=generator.random() < 0.5
            ),
            "at the end of a run": lambda: AtCall(
                "shortback.runs.train", "save_file", 1, before=generator.random() < 0.5
            ),
            "while a row is written": lambda: AtCall(
                "shortback.training.loggers:JsonLines", "log", generator.randint(2, 12), before=generator.random() < 0.5
            ),
        }
        total = 0
        for index, (name, make) in enumerate(places.items()):
            share = options.kills // len(places) + (index < options.kills % len(places))
            killed = equal = 0
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
                wrong = differences(base / "whole", out)
                equal += not wrong
                if wrong:
                    failures += 1
                    print(f"  {out} differs in {', '.join(wrong)}", flush=True)
                shutil.rmtree(out)
            total += killed
            print(f"{name}: {killed} kills", flush=True)
        for name, make_command, whom in (
            ("one of two processes", torchrun, "child"),
            ("two processes and their agent", torchrun, "all"),
            ("a worker of an ablation", ablation, "child"),
            ("the parent of an ablation", ablation, "parent"),
        ):
            whole, cut = base / f"whole-{whom}-{make_command.__name__}", base / f"cut-{whom}-{make_command.__name__}"
            started = time.monotonic()
            done = call([part for part in make_command(whole) if part != "--resume"])
            assert done.returncode == 0, done.stderr
            seconds = time.monotonic() - started
            for _ in range(3):
                arguments = make_command(cut)
                if "--resume" in arguments and not (cut / "recipe.yaml").exists():
                    arguments.remove("--resume")
                kill_in(arguments, generator.uniform(0.4, 0.9) * seconds, whom, generator)
                total += 1
            arguments = make_command(cut)
            if "--resume" in arguments and not (cut / "recipe.yaml").exists():
                arguments.remove("--resume")
            done = call(arguments)
            assert done.returncode == 0, done.stderr
            runs = [path.parent.relative_to(whole) for path in whole.rglob("summary.json")]
            wrong = [f"{path}: {what}" for path in runs for what in differences(whole / path, cut / path)]
            failures += bool(wrong)
            print(f"{name}: 3 kills{', differs in ' + ', '.join(wrong) if wrong else ''}", flush=True)
        print(f"a full disk: {on_a_full_disk(base)}")
        print(f"{total} kills, {failures} runs that ended differently")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    sys.exit(bool(failures))


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}

if __name__ == "__main__":
    CONTEXT = multiprocessing.get_context("forkserver")
    CONTEXT.set_forkserver_preload(["shortback.runs.train", "torch._dynamo"])
    main()
