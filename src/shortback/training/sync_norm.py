r"""Batch norm over the whole global batch, for processes on CPUs too.

PyTorch's SyncBatchNorm is for GPUs only. This one sums $x$, and then $(x - \mu)^2$, over the processes with a
differentiable all-reduce, so that a run on several processes has the statistics, and the gradients, of one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


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


class SyncNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of all processes in training; the same parameters, buffers and keys."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [0, 2, 3]
        count = x.new_full((1,), x.numel() / x.shape[1])
        sums = _SumOverProcesses.apply(torch.cat([x.sum(axes), count]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = x - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._update(mean.detach(), variance.detach(), count.detach())
        scale = torch.rsqrt(variance + self.eps)
        y = centred * (scale if self.weight is None else scale * self.weight)[:, None, None]
        return (y if self.bias is None else y + self.bias[:, None, None]).to(input.dtype)

    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), momentum)


def synchronise_norms(net: nn.Module, *, device: str) -> None:
    """Make every batch norm in `net` use the statistics of all processes, in place."""
    if device == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncNorm2d


def restore_norms(net: nn.Module) -> None:
    """Undo `synchronise_norms` on a CPU."""
    for module in net.modules():
        if type(module) is SyncNorm2d:
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
