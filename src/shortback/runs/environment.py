"""The environment of a run: processor, versions and Git commit."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path

import torch

import shortback
from shortback.processes import num_cores
from shortback.runs.summary import Environment


@functools.cache
def environment() -> Environment:
    """The environment of this process; the commit is that of the working directory at the first call."""
    return {
        "processor": _processor(),
        "versions": {
            "shortback": shortback.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # there is no git on this machine
        return None
    return git.stdout.strip() or None


def _processor() -> str:
    """The name of the CPU, as reported by the system, and the number of usable cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {num_cores()} cores"
