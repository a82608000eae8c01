"""The most memory in use: of a GPU what PyTorch allocates there, else what the system gives this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> None:
    """Begin anew, where that can be done: on a GPU and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # the highest resident set: man 5 proc_pid_clear_refs


def peak_bytes(device: torch.device) -> int:
    """The most in use since `forget_peak`, or since the process began where that does nothing."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _CLEAR.exists():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 2**10
    # macOS counts in bytes, others in kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
