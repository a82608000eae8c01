"""Spiking ResNets on folded time (He et al., CVPR 2016), made of the blocks in `residual.py`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from shortback.choices import Norm, Residual, Stem, check_choice
from shortback.models.layers import Layers, LayerSequence, ModelSettings, StagedNetwork, initialize
from shortback.models.registry import register_model
from shortback.models.residual import BLOCKS
from shortback.neurons import Expand, NeuronFactory


class ResNetSettings(ModelSettings, total=False):
    """Keyword arguments of every ResNet: see `ResNet`."""

    residual: Residual
    width: float
    norm: Norm


class ResNet(StagedNetwork):
    """A stem, stages `layer1`, `layer2`, ... of residual blocks, and one linear classifier `fc`.

    Convolutions start He-normal by fan-out and batch norms at the identity, as in torchvision.

    Args:
        num_blocks: number of blocks of each stage; all stages but the first halve the image.
        channels: channels of each stage, before `width`.
        num_classes: number of logits `K`.
        num_steps: number of time steps `T`.
        in_channels: channels of the image.
        neuron: makes the neurons, `LIF` if not given.
        residual: kind of the blocks, see `residual.py`. A `"membrane"` network passes on currents from the stem to the
            last block, and fires once more before the classifier.
        stem: `"cifar"` is one 3x3 convolution, `"imagenet"` a 7x7 convolution and a 3x3 max pooling, each of stride 2,
            `"deep"` three 3x3 convolutions and an average pooling by 2.
        width: factor on all channels.
        norm: `"batch"`, `"tdbn"` or `"tebn"` (`shortback.models.norms`), or `"none"` for convolutions with a bias and
            no norm.
        average_downsample: whether shortcuts that halve the image average pixels instead of skipping some.
        zero_init_residual: whether each block starts as its shortcut, with the weight of its last norm at zero.
            It has an effect only with `"batch"` norms, as the others have their own initial weights, and only if the
            skip is added to a current: a neuron before the addition (SEW) would get a current of zero, outside the
            window of its surrogate, and never learn; and without a skip, no signal would pass.

    Raises:
        ValueError: a value is outside its range; the message names it.

    Shape:
        `[T*N, C, H, W] -> [T*N, K]`; `create_model` wraps it for `[N, C, H, W]` and `[T, N, C, H, W]`.
    """

    def __init__(
        self,
        *,
        num_blocks: Sequence[int],
        channels: Sequence[int],
        num_classes: int = 10,
        num_steps: int = 4,
        in_channels: int = 3,
        neuron: NeuronFactory | None = None,
        residual: Residual = "spiking",
        stem: Stem = "cifar",
        width: float = 1.0,
        norm: Norm = "batch",
        average_downsample: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__(num_blocks)
        check_choice("residual", residual, Residual)
        check_choice("stem", stem, Stem)
        layers = Layers(num_steps=num_steps, neuron=neuron, norm=norm, width=width)
        block = functools.partial(BLOCKS[residual], layers=layers, average_downsample=average_downsample)
        fires = residual != "membrane"

        scaled = [layers.scale(each) for each in channels]
        self.stem = _make_stem(stem, in_channels=in_channels, channels=scaled[0], layers=layers, fires=fires)
        for stage, number, before, after in zip(
            self.stages(), num_blocks, [scaled[0], *scaled[:-1]], scaled, strict=True
        ):
            first = block(before, channels=after, stride=1 if stage == "layer1" else 2)
            others = (block(after, channels=after) for _ in range(number - 1))
            self.add_module(stage, nn.Sequential(first, *others))
        self.neuron = nn.Identity() if fires else layers.fire()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(scaled[-1], num_classes)

        initialize(self)
        if zero_init_residual and norm == "batch" and residual in ("spiking", "membrane"):
            for name in self.blocks():
                nn.init.zeros_(self.get_parameter(f"{name}.norm2.weight"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages():
            x = self.get_submodule(stage)(x)
        x = self.pool(self.neuron(x))
        return self.fc(torch.flatten(x, 1))


def _make_stem(kind: Stem, *, in_channels: int, channels: int, layers: Layers, fires: bool) -> nn.Sequential:
    """Make a stem: convolution, norm and neuron, once or thrice, then any pooling.

    A stem that does not fire lacks the last neuron, and expands a static image over time at its end, since its current
    is later added to currents that change from step to step.
    """
    stem = LayerSequence()
    num_convs = 3 if kind == "deep" else 1
    kernel_size, stride = (7, 2) if kind == "imagenet" else (3, 1)
    for i in range(1, num_convs + 1):
        conv = layers.conv(in_channels, channels, kernel_size=kernel_size, stride=stride)
        stem.add_module(f"conv{i}", conv)
        stem.add_module(f"norm{i}", layers.normalize(channels))
        if fires or i < num_convs:
            stem.add_module(f"neuron{i}", layers.fire())
        in_channels = channels
    if kind == "imagenet":
        stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    elif kind == "deep":
        stem.add_module("pool", nn.AvgPool2d(2))
    if not fires:
        stem.add_module("expand", Expand(layers.num_steps))
    return stem


@register_model
def resnet18(*, stem: Stem = "cifar", **settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-18: 64-128-256-512 channels, 2-2-2-2 blocks."""
    return ResNet(num_blocks=(2, 2, 2, 2), channels=(64, 128, 256, 512), stem=stem, **settings)


@register_model
def resnet34(*, stem: Stem = "cifar", **settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-34: 64-128-256-512 channels, 3-4-6-3 blocks."""
    return ResNet(num_blocks=(3, 4, 6, 3), channels=(64, 128, 256, 512), stem=stem, **settings)


@register_model
def resnet19(**settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-19 for spiking networks (Zheng et al., AAAI 2021): 128-256-512 channels, 3-3-2 blocks."""
    return ResNet(num_blocks=(3, 3, 2), channels=(128, 256, 512), **settings)


@register_model
def resnet20_modified(**settings: Unpack[ResNetSettings]) -> ResNet:
    """The larger network that spiking papers also call ResNet-20: 64-128-256-512 channels, 2-2-2-2 blocks.

    Its stem has three convolutions and an average pooling, its shortcuts average, and its blocks start as their
    shortcuts (as in the authors' code of MPBN, Guo et al., ICCV 2023).
    """
    return ResNet(
        num_blocks=(2, 2, 2, 2),
        channels=(64, 128, 256, 512),
        stem="deep",
        average_downsample=True,
        zero_init_residual=True,
        **settings,
    )


@register_model
def resnet20(**settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-20 for CIFAR: 16-32-64 channels, 3 blocks per stage."""
    return ResNet(num_blocks=(3, 3, 3), channels=(16, 32, 64), **settings)


@register_model
def resnet32(**settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-32 for CIFAR: 16-32-64 channels, 5 blocks per stage."""
    return ResNet(num_blocks=(5, 5, 5), channels=(16, 32, 64), **settings)


@register_model
def resnet44(**settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-44 for CIFAR: 16-32-64 channels, 7 blocks per stage."""
    return ResNet(num_blocks=(7, 7, 7), channels=(16, 32, 64), **settings)


@register_model
def resnet56(**settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-56 for CIFAR: 16-32-64 channels, 9 blocks per stage."""
    return ResNet(num_blocks=(9, 9, 9), channels=(16, 32, 64), **settings)


@register_model
def resnet110(**settings: Unpack[ResNetSettings]) -> ResNet:
    """ResNet-110 for CIFAR: 16-32-64 channels, 18 blocks per stage."""
    return ResNet(num_blocks=(18, 18, 18), channels=(16, 32, 64), **settings)
