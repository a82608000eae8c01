"""Compare the weight gradients of convolutions with float64 by hand; a program, since what it looks for can hang.

`python tests/convolution_gradients.py THREADS` prints how many it compared, or raises.
"""

import contextlib
import functools
import itertools
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from shortback.inspection.pointwise import patch_strided_1x1
from shortback.models import create_model, list_models
from shortback.neurons import LIF
from tests.networks.zoo import CASES

WIDTHS = (0.125, 0.25, 0.5, 1.0)
SIZES = (8, 7)
BATCH = 6
CHANNELS = (1, 2, 3, 4, 7, 8, 9, 15, 16)


def networks():
    """Ours at all widths, each kind of block and stem, then those of other libraries."""
    neuron = functools.partial(LIF, backend="reference")
    small = [name for name in list_models() if name not in ("resnet34", "resnet44", "resnet56", "resnet110")]
    for name, width in itertools.product(small, WIDTHS):
        yield create_model(name, num_steps=1, neuron=neuron, width=width)
    for residual, width in itertools.product(("sew", "membrane", "plain"), WIDTHS):
        yield create_model("resnet20", num_steps=1, neuron=neuron, width=width, residual=residual)
    for width in WIDTHS:
        yield create_model("resnet18", num_steps=1, neuron=neuron, width=width, stem="imagenet")
    for case in CASES.values():
        with contextlib.suppress(pytest.skip.Exception):  # a library that is not here
            yield case.make()


def downsampling():
    """Strided 1x1 convolutions of all narrow widths, which are where the fault is."""
    for channels, groups, stride in itertools.product(CHANNELS, (1, 2), (2, 3, (1, 2))):
        yield nn.Conv2d(channels * groups, 2 * channels * groups, 1, stride, groups=groups)


def convolutions():
    """One of each shape, as `patch_strided_1x1` has it run."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    shapes = [
        tuple(getattr(module, name) for name in names)
        for network in (*networks(), *downsampling())
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
    ]
    found = nn.ModuleList(
        nn.Conv2d(**dict(zip(names, shape, strict=True)), bias=False) for shape in dict.fromkeys(shapes)
    )
    patch_strided_1x1(found)
    return found


def by_hand(conv, x, gradient):
    """The weight gradient as a sum of products, in float64."""
    columns = F.unfold(x.double(), conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    columns = columns.view(len(x), conv.groups, -1, columns.shape[-1])
    gradients = gradient.double().flatten(2).view(len(x), conv.groups, -1, columns.shape[-1])
    return torch.einsum("ngol,ngil->goi", gradients, columns).reshape(conv.weight.shape)


def worst_error(conv, size, memory_format):
    """The largest relative error of the weight gradient, of the size of the largest."""
    conv = conv.to(memory_format=memory_format)
    size = max(size, *conv.kernel_size)
    x = torch.randn(BATCH, conv.in_channels, size, size).contiguous(memory_format=memory_format)
    out = conv(x.requires_grad_())
    gradient = torch.randn_like(out)
    found, _ = torch.autograd.grad(out, (conv.weight, x), gradient)
    expected = by_hand(conv, x.detach(), gradient)
    return ((found - expected).abs().max() / expected.abs().max()).item()


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    count = 0
    for conv, size, memory_format in itertools.product(
        convolutions(), SIZES, (torch.contiguous_format, torch.channels_last)
    ):
        error = worst_error(conv, size, memory_format)
        assert error < 1e-5, f"{conv}, {size} pixels, {memory_format}: off by {error:.1e}"
        count += 1
    print(count)


if __name__ == "__main__":
    main()
