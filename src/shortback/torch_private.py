"""All use of private PyTorch APIs, in one place: tested with the oldest and the newest torch supported."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import pyfunctorch
from torch.nn.modules import module as torch_module
from torch.utils import _python_dispatch

log = logging.getLogger("shortback")
UNCOMPILED = "_orig_mod"  # the attribute in which the wrapper of `torch.compile` stores the original module


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module is the result of `torch.compile(module)`, or was compiled by `module.compile()`.

    Checking for the wrapper's class instead would import all of Dynamo.
    """
    return hasattr(module, UNCOMPILED) or getattr(module, "_compiled_call_impl", None) is not None


def is_replica(module: nn.Module) -> bool:
    """Return whether a module is one of the copies that `nn.DataParallel` runs."""
    return getattr(module, "_is_replica", False)


def is_hooked(module: nn.Module) -> bool:
    """Return whether calling a module runs hooks besides its `forward`: the test that `nn.Module.__call__` makes."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        torch_module._global_forward_hooks,
        torch_module._global_forward_pre_hooks,
        torch_module._global_backward_hooks,
        torch_module._global_backward_pre_hooks,
    )
    return any(hooks)


def hooks_of(module: nn.Module) -> list[Callable[..., Any]]:
    """Return the forward hooks that are registered on a module."""
    return list(module._forward_hooks.values())


def drop_hooks(module: nn.Module, is_dropped: Callable[[Callable[..., Any]], bool]) -> None:
    """Remove the forward hooks of a module that `is_dropped` selects; a copied module has hooks without handles."""
    for key, hook in list(module._forward_hooks.items()):
        if is_dropped(hook):
            del module._forward_hooks[key]


def version_of(tensor: Tensor) -> int:
    """Return a counter that every in-place change of a tensor, or of a view of it, increases."""
    return tensor._version


def base_of(tensor: Tensor) -> Tensor | None:
    """Return the base of a view; None for a tensor that is not a view."""
    return tensor._base


def mark_dynamic(tensor: Tensor, axis: int) -> None:
    """Let a graph that is compiled for a tensor serve other sizes of an axis too, if possible."""
    torch._dynamo.maybe_mark_dynamic(tensor, axis)


def has_compiled(code: types.CodeType) -> bool:
    """Return whether Dynamo holds a compiled graph for a code object."""
    return bool(torch._C._dynamo.eval_frame._debug_get_cache_entry_list(code))  # type: ignore[attr-defined]


def compile_whole(function: Callable[..., Any]) -> Any:
    """Compile a function or module with `torch.compile` as one graph, cached by the CPU's vector width.

    The loops of a kernel step by that width, but the key of the on-disk cache of graphs lacks it: a graph made with
    AVX-512 is reused with AVX2, where it writes half of its results and leaves the rest as uninitialised memory. This
    happens on CPUs that share a cache folder, and with `ATEN_CPU_CAPABILITY`. As an option, the width is part of the
    key. The options also skip a trial of every instruction set of the CPU, which takes seven seconds the first time.
    """
    return torch.compile(function, fullgraph=True, options=_options() or None)


def _options() -> dict[str, Any]:
    width = {"AVX512": 512, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    return {} if width is None else {"cpp.simdlen": width, "cpp.vec_isa_ok": True}


def compiler_cache() -> Path:
    """Return the folder in which PyTorch's compiler keeps what it compiled."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir())


def compiler_settings() -> str | None:
    """Return a digest of the settings of PyTorch's compiler, or None if they disable its cache."""
    from torch._inductor import config

    if config.force_disable_caches or not config.fx_graph_cache:
        return None
    return config.get_hash().hex()


def compile_ahead(compiled: Any, tensors: Sequence[Tensor | None]) -> Any:
    """Compile the result of `compile_whole` for the shapes of `tensors`, in a form that can be stored.

    Returns:
        The kernel, whose `guard_check` tells whether a call fits, or None where PyTorch cannot do so: 2.15 can, and
        2.11 only with an experimental flag.
    """
    if not hasattr(compiled, "aot_compile"):
        return None
    try:
        kernel = compiled.aot_compile((tuple(tensors), {}))
    except Exception as error:  # of any kind; an error in the function itself will show when it is compiled as usual
        log.debug("not compiled ahead of time: %r", error)
        return None
    return _checked_by_caller(kernel)


def load_ahead(path: Path) -> Any:
    """Load a kernel of `compile_ahead` that `save_compiled_function` wrote; None if the file is missing or damaged."""
    from torch._inductor import config

    try:
        with open(path, "rb") as file, config.patch(_options()):
            # The code around a graph may name the module `torch`, which a file cannot hold.
            return _checked_by_caller(torch.compiler.load_compiled_function(file, f_globals={"torch": torch}))
    except FileNotFoundError:
        return None
    except Exception as error:  # unpickling what is damaged may raise anything
        log.debug("%s cannot be loaded: %r", path, error)
        return None


def _checked_by_caller(kernel: Any) -> Any:
    """Turn off the guard check inside a kernel's call: the caller asks `guard_check` first, and then decides."""
    kernel.disable_guard_check()
    return kernel


def without_autocast(call: Callable[..., Any], *tensors: Tensor | None) -> Any:
    """Return `call(*tensors)`, run with autocast off on the device of the first tensor that is not None.

    Graphs are compiled for a state of autocast, and a backward pass runs with autocast off. The context manager
    `torch.autocast` does the same, ten times slower.
    """
    first = next(tensor for tensor in tensors if tensor is not None)
    device = first.device.type
    if not torch.is_autocast_enabled(device):
        return call(*tensors)
    torch.set_autocast_enabled(device, False)
    try:
        return call(*tensors)
    finally:
        torch.set_autocast_enabled(device, True)


def is_tracing() -> bool:
    """Return whether `torch.jit.trace` is active."""
    return torch._C._get_tracing_state() is not None  # type: ignore[attr-defined]


@contextmanager
def without_modes() -> Iterator[None]:
    """Disable dispatch modes, which see every operation, and transforms of `torch.func` within the block."""
    with pyfunctorch.temporarily_clear_interpreter_stack(), _python_dispatch._disable_current_modes():
        yield


def norms_of(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the norm of each tensor, computed by a few kernels for all of them."""
    return torch._foreach_norm(tensors)  # type: ignore[attr-defined]


def is_patched(module: nn.Module) -> bool:
    """Return whether the computation of a module was replaced on the instance."""
    return "forward" in module.__dict__ or "_conv_forward" in module.__dict__


def is_transformed(*tensors: Tensor | None) -> bool:
    """Return whether a transform of `torch.func`, a batched gradient or a dispatch mode is active.

    Compiled kernels cannot run then: fake tensors have no memory, and a mode that counts operations would miss them.
    """
    if torch._C._len_torch_dispatch_stack() or is_functional():  # type: ignore[attr-defined]
        return True
    is_batched = torch._C._functorch.is_legacy_batchedtensor  # type: ignore[attr-defined]
    return any(tensor is not None and is_batched(tensor) for tensor in tensors)


def is_functional() -> bool:
    """Return whether a transform of `torch.func` is active, such as `grad` or `vmap`."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
