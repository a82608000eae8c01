"""Measure peak memory: what PyTorch allocates on a GPU, or the resident memory of this process on a CPU."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> None:
    """Reset the peak; without effect on the CPU of a system other than Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # resets the peak resident set size, see man 5 proc_pid_clear_refs


def peak_bytes(device: torch.device) -> int:
    """Peak memory since `forget_peak`, or since the process started where that has no effect."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _CLEAR.exists():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 2**10
    # macOS reports bytes, other systems kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
