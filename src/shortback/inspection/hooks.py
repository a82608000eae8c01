"""Temporary forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def hooked(
    hooks: Iterable[tuple[nn.Module, Callable[..., Any]]], *, before: bool = False, with_kwargs: bool = False
) -> Iterator[None]:
    """Register forward hooks in the order given, and remove them when the block ends.

    Args:
        hooks: pairs of a module and its hook.
        before: whether to register pre-hooks, which are called with the inputs alone.
        with_kwargs: whether hooks are also called with the inputs by keyword, after the others.
    """
    handles = []
    try:
        for module, hook in hooks:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(hook, with_kwargs=with_kwargs))
        yield
    finally:
        for handle in handles:
            handle.remove()
