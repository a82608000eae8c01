"""Check that an installed package works without the checkout: `make package` runs it elsewhere, in a bare environment.

cd /tmp && path/to/environment/bin/python path/to/scripts/check_package.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import typer

import shortback
from shortback import bench
from shortback.cli import app

COMMAND = [sys.executable, "-m", "shortback"]
SLOWEST = {"import": 0.15, "help": 0.4}  # seconds that the quickest of three runs may take


def main() -> None:
    checkout = Path(__file__).resolve().parents[1]
    package = Path(shortback.__file__).resolve()
    if checkout in package.parents and "site-packages" not in package.parts:
        raise SystemExit(f"{package} is the package in the checkout, not an installed one")
    description = metadata("shortback")
    if "](docs/" in (description.get_payload() or "") or not description.get_all("Project-URL"):
        raise SystemExit("the description of the package has links that do not work outside the repository")
    found = {
        "import": _quickest([sys.executable, "-c", "import shortback"]) - _quickest([sys.executable, "-c", ""]),
        "help": _quickest([*COMMAND, "--help"]),
    }
    for name, seconds in found.items():
        print(f"{name}: {seconds:.2f} s, of at most {SLOWEST[name]}", flush=True)
    for words in commands(typer.main.get_command(app)):
        _run([*COMMAND, *words, "--help"])
        print(f"shortback {' '.join(words)} --help", flush=True)
    if not bench.questions():
        raise SystemExit("the package has no benchmarks")
    with tempfile.TemporaryDirectory() as folder:
        _run([*COMMAND, "train", "quickstart", "-s", "train.epochs=1", "--out", f"{folder}/run"])
    print("the quickstart's first epoch is trained")
    if any(seconds > SLOWEST[name] for name, seconds in found.items()):
        raise SystemExit("it starts too slowly: see above")


def commands(command: Any) -> list[list[str]]:
    """The words of a command and of all commands below it."""
    below = getattr(command, "commands", {})
    return [[], *([name, *words] for name, child in below.items() for words in commands(child))]


def _quickest(command: list[str]) -> float:
    laps = []
    for _ in range(3):
        start = time.perf_counter()
        _run(command)
        laps.append(time.perf_counter() - start)
    return min(laps)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main()
