"""Record the machine, the versions and the time of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("shortback", "torch", "torchvision", "triton", "numpy", "spikingjelly", "snntorch")
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")  # variables that forbid instructions the processor has
ALLOCATOR = ("LD_PRELOAD", "MALLOC_CONF", "GLIBC_TUNABLES")  # variables that replace or tune glibc's allocator


def environment() -> dict[str, Any]:
    """Date, commit, versions, processor, GPU and allocator, as plain values."""
    here = Path(__file__).parent
    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git(here, "rev-parse", "HEAD"),
        "git_changed": bool(_git(here, "status", "--porcelain", "--untracked-files=no", "--", ":!results")),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "gpu": gpu,
        "allocator": _set_in_environment(ALLOCATOR),
    }


def _cpu() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.*)$", text, flags=re.MULTILINE)
    flags = set(re.findall(r"^flags\s*:\s*(.*)$", text, flags=re.MULTILINE)[0].split()) if "flags" in text else set()
    return {
        "name": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": {flag: flag in flags for flag in CPU_FLAGS},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "limits": _set_in_environment(LIMITS),
        "load_average": list(os.getloadavg()) if sys.platform != "win32" else None,
    }


def _set_in_environment(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if it is empty, or without git or a repository, as in a wheel."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
