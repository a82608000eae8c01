"""The choice of the neuron's implementation: by name, or automatically, once per type of device, and logged."""

from __future__ import annotations

import functools
import logging
from typing import Literal

import torch

from shortback.choices import Backend, check_choice
from shortback.ops import kernels
from shortback.torch_private import is_tracing, without_modes

log = logging.getLogger("shortback")


def resolve(backend: Backend, device_type: str) -> Literal["reference", "compiled"]:
    """Return the implementation that `backend` selects on a device of type `device_type` (`"cpu"`, `"cuda"`, ...).

    `"auto"` selects `"compiled"` where that works and `"reference"` elsewhere; the choice is logged the first time.
    Under `torch.jit.trace` the result is always `"reference"`.

    Raises:
        ValueError: `backend` is unknown.
        RuntimeError: `backend` is `"compiled"`, which does not work on the device; the message says why.
    """
    if is_tracing():  # a trace records PyTorch operations, and cannot see into compiled kernels
        return "reference"
    return _resolve(backend, device_type)


@functools.cache
def _resolve(backend: Backend, device_type: str) -> Literal["reference", "compiled"]:
    if backend == "reference":
        return "reference"
    check_choice("backend", backend, Backend)
    reason = _why_not_compiled(device_type)
    if reason is None:
        if backend == "auto":
            log.info("neurons on %s use the compiled backend", device_type)
        return "compiled"
    if backend == "compiled":
        raise RuntimeError(f"backend='compiled' does not work on {device_type}: {reason}. Use backend='reference'.")
    log.warning("neurons on %s use the reference backend, which is slower: %s", device_type, reason)
    return "reference"


@functools.cache
def _why_not_compiled(device_type: str) -> str | None:
    """Compile a trivial function on the device; return None if `torch.compile` works, otherwise why it does not."""
    if device_type not in ("cpu", "cuda"):
        return f"it supports cpu and cuda, not {device_type}"
    warnings = logging.getLogger("torch.utils.cpp_extension")
    level = warnings.level
    if device_type == "cpu":  # on a machine with CUDA tools but no GPU, the compiler warns of the missing GPU
        warnings.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), without_modes():
            kernels.run(_increment, (), torch.zeros(8, device=device_type))
    except Exception as error:  # a broken or missing toolchain raises many kinds of error
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    finally:
        warnings.setLevel(level)
    return None


def _increment(x: torch.Tensor) -> torch.Tensor:
    return x + 1
