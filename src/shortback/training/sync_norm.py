r"""Batch norm over the whole global batch, for processes on CPUs too.

PyTorch's SyncBatchNorm is for GPUs only, and takes the place of a module whatever its own forward does. This one sums
$x$, and then $(x - \mu)^2$, over the processes with a differentiable all-reduce, so that a run on several processes has
the statistics, and the gradients, of one. It stands behind the class of a norm, so that a forward which folds time
first, as SpikingJelly's norms do, goes on doing so.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; what each one does with it contributes to the gradient."""

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
    """The forward of PyTorch's batch norms with the statistics of all processes in training, `[N, C, ...]`."""

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
    """A class of norms with `SyncNorm` in the place of the forward that PyTorch's norms share."""
    return type(f"Sync{norm.__name__}", (norm, SyncNorm), {})  # type: ignore[misc]


def synchronise_norms(net: nn.Module) -> None:
    """Make every batch norm in `net` use the statistics of all processes, in place: each stays the object it is."""
    for module in net.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncNorm | nn.SyncBatchNorm):
            module.__class__ = _synchronised(type(module))


def restore_norms(net: nn.Module) -> None:
    """Undo `synchronise_norms`."""
    for module in net.modules():
        if isinstance(module, SyncNorm):
            module.__class__ = type(module).__bases__[0]
