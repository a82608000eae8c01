"""Which implementation of the neuron runs: asked for by name, or chosen once for a kind of device and logged."""

from __future__ import annotations

import functools
import logging
from typing import Literal

import torch

from shortback.choices import Backend, check_choice
from shortback.torch_private import compile_whole, is_tracing, without_modes

log = logging.getLogger("shortback")


def resolve(backend: Backend, device_type: str) -> Literal["reference", "compiled"]:
    """The backend that `backend` means on a device of type `device_type` (`"cpu"`, `"cuda"`, ...).

    `"auto"` is `"compiled"` where that works and `"reference"` elsewhere, and is logged the first time.

    Raises:
        ValueError: an unknown name.
        RuntimeError: `"compiled"` was asked for and cannot be had; the message says why.
    """
    if is_tracing():  # which records operations one by one
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
    """None if `torch.compile` works on the device, found out by compiling the smallest of functions."""
    if device_type not in ("cpu", "cuda"):
        return f"it is made for cpu and cuda, not {device_type}"
    if device_type == "cpu":  # the compiler warns of a GPU that is not there, on a machine that has its tools
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), without_modes():
            compile_whole(_increment)(torch.zeros(8, device=device_type))
    except Exception as error:  # whatever the toolchain raises: a missing compiler has many faces
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _increment(x: torch.Tensor) -> torch.Tensor:
    return x + 1
