"""Compiled kernels on disk, which a later process loads in hundredths of a second instead of tracing their source.

They are in the cache folder of PyTorch's compiler, as `shortback/HASH.bin`. The hash covers what a kernel is made
from: its source, its constants, PyTorch, the processor and the settings of the compiler. What depends on the moment of
a call (sizes, strides, gradient mode, autocast and the like) is in the guards that are stored with a kernel.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import logging
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shortback import surrogates
from shortback.files import replacing
from shortback.torch_private import compile_ahead, compiler_cache, compiler_settings, load_ahead

log = logging.getLogger("shortback")
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


def load_or_compile(
    function: Callable[..., Any], tensors: Sequence[Tensor | None], *, body: Callable[..., Any], kind: tuple[Any, ...]
) -> Any:
    """Return a kernel that was stored by this or another process, or compile it ahead of time and store it.

    Args:
        function: the compiled function (`shortback.torch_private.compile_whole`), which calls `body`.
        tensors: its arguments, with their free axes marked.
        body: the function of this package that the kernel computes.
        kind: what it is compiled for: its constants, the signature of its tensors, and modes of PyTorch.

    Returns:
        A kernel with a method `guard_check` for its arguments, or None if it cannot be stored: on a GPU, with code from
        outside this package, such as a user's surrogate, and where PyTorch cannot compile ahead of time.
    """
    on_cpu = all(tensor is None or tensor.device.type == "cpu" for tensor in tensors)
    if not (on_cpu and _is_ours(body.__module__) and _has_faithful_repr(kind)):
        return None
    settings = compiler_settings()
    if settings is None:
        return None
    identity = body.__module__, body.__qualname__, kind, settings, _made_with(inspect.getfile(body))
    path = compiler_cache() / "shortback" / f"{hashlib.sha256(repr(identity).encode()).hexdigest()}.bin"
    return load_ahead(path) or _compile(function, tensors, path)


def _compile(function: Callable[..., Any], tensors: Sequence[Tensor | None], path: Path) -> Any:
    kernel = compile_ahead(function, tensors)
    if kernel is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            kernel.save_compiled_function(str(temporary))
    except OSError as error:  # a full disk, or a folder that cannot be written: the next process compiles again
        log.debug("a compiled kernel is not stored in %s: %s", path, error)
    return kernel


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _has_faithful_repr(value: Any) -> bool:
    """Whether equal `repr` means equal constants: numbers, words, and dataclasses of this package made of these."""
    if isinstance(value, tuple):
        return all(map(_has_faithful_repr, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        is_shown = all(field.repr and _has_faithful_repr(getattr(value, field.name)) for field in fields)
        return is_shown and _is_ours(type(value).__module__)
    return isinstance(value, _PLAIN)


@functools.cache
def _made_with(source: str) -> str:
    """Return a digest of the source of kernels, of PyTorch and Python, and of the processor."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(inspect.getfile(surrogates)), Path(source)]
    digest = hashlib.sha256(repr((torch.__version__, torch.version.git_version, sys.version, _processor())).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _processor() -> tuple[str, ...]:
    """Return what code is compiled for: the instructions of the processor, and which of them PyTorch uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = {line for line in lines if line.partition(":")[0].strip() in ("flags", "Features", "model name")}
    return platform.machine(), torch.backends.cpu.get_cpu_capability(), *sorted(processor)
