r"""Batch norm over the whole global batch, for processes on CPUs too.

PyTorch's SyncBatchNorm works on GPUs only, and replaces a module whatever its own forward does. `SyncNorm` sums $x$,
and then $(x - \mu)^2$, over the processes with a differentiable all-reduce, so that a run on several processes has the
statistics and gradients of a run on one. It is inserted behind the norm's own class, so that a forward which folds time
first, as in SpikingJelly's norms, still does so.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

log = logging.getLogger("shortback")


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; the backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncNorm(_BatchNorm):
    """A batch norm of `[N, C, ...]` that uses the statistics of all processes in training."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        by_channel = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        count = x.new_full((1,), x.numel() / x.shape[1])
        sums = _SumOverProcesses.apply(torch.cat([x.sum(axes), count]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = x - mean.view(by_channel)
        variance = _SumOverProcesses.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._update(mean.detach(), variance.detach(), count.detach())
        scale = torch.rsqrt(variance + self.eps)
        y = centred * (scale if self.weight is None else scale * self.weight).view(by_channel)
        return (y if self.bias is None else y + self.bias.view(by_channel)).to(input.dtype)

    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), momentum)


@functools.cache
def _synchronised(norm: type[_BatchNorm]) -> type[_BatchNorm]:
    """Derive a class of norms in which `SyncNorm` replaces the forward that PyTorch's norms share."""
    return type(f"Sync{norm.__name__}", (norm, SyncNorm), {})  # type: ignore[misc]


def synchronise_norms(net: nn.Module) -> None:
    """Make every batch norm in `net` use the statistics of all processes, in place, by changing its class.

    A norm whose class normalises in its own forward, such as timm's `BatchNormAct2d`, is left as it is, with a warning.
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and not isinstance(m, SyncNorm | nn.SyncBatchNorm)]
    alone = {type(norm).__name__ for norm in norms if _has_own_forward(type(norm))}
    if alone:
        log.warning(
            "%s normalises in its own forward, so each process uses its own statistics. On GPUs, convert the network "
            "beforehand, as timm.layers.convert_sync_batchnorm does for timm's networks",
            " and ".join(sorted(alone)),
        )
    for norm in norms:
        if not _has_own_forward(type(norm)):
            _set_class(norm, _synchronised(type(norm)))


def _has_own_forward(norm: type[_BatchNorm]) -> bool:
    """Whether a class that is not PyTorch's calls `batch_norm` in its own forward."""
    own = norm.__mro__[: norm.__mro__.index(_BatchNorm)]
    forwards = [kind.__dict__["forward"] for kind in own if "forward" in kind.__dict__]
    return any("batch_norm" in forward.__code__.co_names for forward in forwards)


class _LocalNorm(nn.SyncBatchNorm):
    """PyTorch's `SyncBatchNorm`, but with the statistics of this process alone."""

    forward = _BatchNorm.forward


def restore_norms(net: nn.Module) -> None:
    """Undo `synchronise_norms`."""
    for module in net.modules():
        if isinstance(module, SyncNorm):
            _set_class(module, type(module).__bases__[0])


@contextmanager
def local_norms(net: nn.Module) -> Iterator[None]:
    """Use the statistics of this process alone within the block, which then need not run in all processes."""
    synchronised = [(m, type(m)) for m in net.modules() if isinstance(m, SyncNorm | nn.SyncBatchNorm)]
    for module, kind in synchronised:
        _set_class(module, kind.__bases__[0] if issubclass(kind, SyncNorm) else _LocalNorm)
    try:
        yield
    finally:
        for module, kind in synchronised:
            _set_class(module, kind)


def _set_class(module: nn.Module, kind: type[nn.Module]) -> None:
    module.__class__ = kind
