"""Work around a bug of oneDNN that corrupts the weight gradient of 1x1 convolutions with a stride.

In channels-last on an x86 CPU, with fewer input channels than a vector holds (8 in AVX2, 16 in AVX-512), the weight
gradient writes past its workspace (oneDNN issue 6035): a crash, a hang, or gradients that are silently half wrong. Such
a convolution only reads every s-th pixel, so taking these pixels first and convolving them with stride 1 is the same
function without the bug.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortback.torch_private import is_patched

VECTOR = 16  # channels in the widest vector, since a build for one processor may run on another

log = logging.getLogger("shortback")


class Subsample(nn.Module):
    """Every `stride`-th pixel in both directions, `[N, C, H, W] -> [N, C, ceil(H / s), ceil(W / s)]`."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def patch_strided_1x1(net: nn.Module) -> list[nn.Conv2d]:
    """Make every convolution that may hit the bug run in two steps in training, and log a warning that names them.

    Inference, keys and parameters stay the same.

    Returns:
        The convolutions changed by this call, for `unpatch_strided_1x1`.
    """
    found = [
        (name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and _may_fail(m) and not is_patched(m)
    ]
    for _, conv in found:
        conv._conv_forward = functools.partial(_in_two_steps, conv)  # type: ignore[method-assign]
    if found:
        log.warning(
            "1x1 convolutions with a stride and fewer than %d input channels run as a subsampling and a convolution of "
            "stride 1 in training, since oneDNN computes wrong weight gradients for them (its issue 6035): %s",
            VECTOR,
            ", ".join(name for name, _ in found),
        )
    return [conv for _, conv in found]


def unpatch_strided_1x1(convolutions: list[nn.Conv2d]) -> None:
    """Undo `patch_strided_1x1` for those convolutions that it changed."""
    for conv in convolutions:
        changed = conv.__dict__.get("_conv_forward")
        if isinstance(changed, functools.partial) and changed.func is _in_two_steps:
            del conv.__dict__["_conv_forward"]


@contextmanager
def patched_strided_1x1(net: nn.Module) -> Iterator[None]:
    """Apply `patch_strided_1x1` inside the block, and undo it afterwards."""
    changed = patch_strided_1x1(net)
    try:
        yield
    finally:
        unpatch_strided_1x1(changed)


def _may_fail(conv: nn.Conv2d) -> bool:
    return (
        tuple(conv.kernel_size) == (1, 1)
        and max(conv.stride) > 1
        and conv.padding in ((0, 0), "valid", "same")
        and conv.in_channels // conv.groups < VECTOR
        and conv.weight.device.type == "cpu"
        and conv.weight.dtype != torch.float64  # not computed by oneDNN
    )


def _in_two_steps(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not torch.is_grad_enabled() or x.device.type != "cpu":
        return type(conv)._conv_forward(conv, x, weight, bias)
    vertical, horizontal = conv.stride
    return F.conv2d(x[..., ::vertical, ::horizontal], weight, bias, groups=conv.groups)
