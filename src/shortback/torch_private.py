"""All that relies on what PyTorch does not promise, in one place: tested on the oldest and newest torch allowed."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import pyfunctorch
from torch.nn.modules import module as torch_module
from torch.utils import _python_dispatch

UNCOMPILED = "_orig_mod"  # where the wrapper of `torch.compile` has the module it was given


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is the wrapper of `torch.compile(module)`, or was marked by `module.compile()`.

    Asking for the wrapper's class instead would import all of dynamo.
    """
    return hasattr(module, UNCOMPILED) or getattr(module, "_compiled_call_impl", None) is not None


def is_replica(module: nn.Module) -> bool:
    """Whether it is one of the copies that `nn.DataParallel` runs."""
    return getattr(module, "_is_replica", False)


def is_hooked(module: nn.Module) -> bool:
    """Whether calling a module does more than its `forward`: the test of `nn.Module.__call__`."""
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
    """The forward hooks that are registered on a module."""
    return list(module._forward_hooks.values())


def drop_hooks(module: nn.Module, is_dropped: Callable[[Callable[..., Any]], bool]) -> None:
    """Take off forward hooks of a module whose handles nobody has, as those of a copy."""
    for key, hook in list(module._forward_hooks.items()):
        if is_dropped(hook):
            del module._forward_hooks[key]


def version_of(tensor: Tensor) -> int:
    """A number that every change in place of a tensor, or of a view of it, raises."""
    return tensor._version


def may_change_in_size(tensor: Tensor, axis: int) -> None:
    """Have what is compiled of a tensor serve other sizes of an axis too, if it can."""
    torch._dynamo.maybe_mark_dynamic(tensor, axis)


def has_compiled(code: types.CodeType) -> bool:
    """Whether Dynamo holds something compiled for the functions of a code object."""
    return bool(torch._C._dynamo.eval_frame._debug_get_cache_entry_list(code))  # type: ignore[attr-defined]


def compile_whole(function: Callable[..., Any]) -> Any:
    """`torch.compile` of a function or module as one graph, kept apart by the width of the processor's vectors.

    The loops of a kernel step by that width, and yet the cache of compiled graphs on disk does not ask for it: one that
    was made with AVX-512 is taken with AVX2 too, where it writes half of its results and leaves the rest as memory was.
    That befalls processors that share a cache folder, and `ATEN_CPU_CAPABILITY`. As an option the width is in the key.
    Nor is the compiler tried on every set of instructions the processor has, which takes seven seconds the first time.
    """
    width = {"AVX512": 512, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    options = None if width is None else {"cpp.simdlen": width, "cpp.vec_isa_ok": True}
    return torch.compile(function, fullgraph=True, options=options)


def without_autocast(call: Callable[..., Any], *tensors: Tensor | None) -> Any:
    """`call(*tensors)` with autocast off on the device of the first tensor.

    What is compiled is compiled for the state of autocast too, and a backward pass runs without. The context manager
    does the same in ten times the time.
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
    """Whether `torch.jit.trace` is at work."""
    return torch._C._get_tracing_state() is not None  # type: ignore[attr-defined]


@contextmanager
def without_modes() -> Iterator[None]:
    """Within it no mode that sees every operation is at work, and no transform of `torch.func`."""
    with pyfunctorch.temporarily_clear_interpreter_stack(), _python_dispatch._disable_current_modes():
        yield


def norms_of(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The norm of each of some tensors, by a few kernels for all of them."""
    return torch._foreach_norm(tensors)  # type: ignore[attr-defined]


def is_patched(module: nn.Module) -> bool:
    """Whether what a module computes was replaced on the instance."""
    return "forward" in module.__dict__ or "_conv_forward" in module.__dict__


def is_transformed(*tensors: Tensor | None) -> bool:
    """Whether a transform of `torch.func`, a batched gradient or a mode that sees every operation is at work.

    Within these nothing compiled can run: fake tensors have no memory, and what counts operations would miss them.
    """
    if torch._C._len_torch_dispatch_stack() or is_functional():  # type: ignore[attr-defined]
        return True
    is_batched = torch._C._functorch.is_legacy_batchedtensor  # type: ignore[attr-defined]
    return any(tensor is not None and is_batched(tensor) for tensor in tensors)


def is_functional() -> bool:
    """Whether a transform of `torch.func` is at work, such as `grad` or `vmap`."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
