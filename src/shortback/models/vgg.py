"""Spiking VGGs on folded time (Simonyan & Zisserman, ICLR 2015), with a norm after every convolution."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from shortback.choices import Norm, Pool, check_choice
from shortback.models.layers import Layers, LayerSequence, ModelSettings, StagedNetwork, initialize
from shortback.models.registry import register_model
from shortback.neurons import NeuronFactory


class VGGSettings(ModelSettings, total=False):
    """Keyword arguments of every VGG: see `VGG`."""

    pool: Pool
    width: float
    norm: Norm


class VGG(StagedNetwork):
    """Stages `layer1`, `layer2`, ... of convolution-norm-neuron blocks, and one linear classifier `fc`.

    Each stage has one resolution: all but the first begin with a pooling by 2. A global average pooling replaces the
    last pooling of the original, and `fc` its three linear layers, so that images may have any size from 16 pixels.
    Convolutions start He-normal by fan-out, as in torchvision.

    Args:
        channels: number of channels of each block, by stage.
        num_classes: number of logits `K`.
        num_steps: number of time steps `T`.
        in_channels: channels of the image.
        neuron: makes the neurons, `LIF` if not given.
        pool: `"max"` passes on a spike if any of four neurons fired, `"average"` the fraction that fired.
        width: factor on all channels.
        norm: `"batch"`, `"tdbn"` or `"tebn"` (`shortback.models.norms`), or `"none"` for convolutions with a bias and
            no norm.

    Raises:
        ValueError: a value is outside its range; the message names it.

    Shape:
        `[T*N, C, H, W] -> [T*N, K]`; `create_model` wraps it for `[N, C, H, W]` and `[T, N, C, H, W]`.
    """

    def __init__(
        self,
        *,
        channels: Sequence[Sequence[int]],
        num_classes: int = 10,
        num_steps: int = 4,
        in_channels: int = 3,
        neuron: NeuronFactory | None = None,
        pool: Pool = "max",
        width: float = 1.0,
        norm: Norm = "batch",
    ) -> None:
        super().__init__([len(stage) for stage in channels])
        check_choice("pool", pool, Pool)
        layers = Layers(num_steps=num_steps, neuron=neuron, norm=norm, width=width)
        before = in_channels
        for name, of_stage in zip(self.stages(), channels, strict=True):
            stage = nn.Sequential()
            if name != "layer1":
                stage.add_module("pool", nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2))
            for i, after in enumerate(map(layers.scale, of_stage)):
                stage.add_module(str(i), _make_block(before, channels=after, layers=layers))
                before = after
            self.add_module(name, stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages():
            x = self.get_submodule(stage)(x)
        return self.fc(torch.flatten(self.pool(x), 1))


def _make_block(in_channels: int, *, channels: int, layers: Layers) -> nn.Sequential:
    conv, norm, neuron = layers.conv(in_channels, channels), layers.normalize(channels), layers.fire()
    return LayerSequence(OrderedDict(conv=conv, norm=norm, neuron=neuron))


@register_model
def vgg11(**settings: Unpack[VGGSettings]) -> VGG:
    """VGG-11: 1-1-2-2-2 convolutions."""
    return VGG(channels=_repeated(1, 1, 2, 2, 2), **settings)


@register_model
def vgg13(**settings: Unpack[VGGSettings]) -> VGG:
    """VGG-13: 2-2-2-2-2 convolutions."""
    return VGG(channels=_repeated(2, 2, 2, 2, 2), **settings)


@register_model
def vgg16(**settings: Unpack[VGGSettings]) -> VGG:
    """VGG-16: 2-2-3-3-3 convolutions."""
    return VGG(channels=_repeated(2, 2, 3, 3, 3), **settings)


@register_model
def vggsnn(**settings: Unpack[VGGSettings]) -> VGG:
    """VGGSNN (TET, Deng et al., ICLR 2022), for event cameras: 64-128, 256-256, 512-512, 512-512, average pooling.

    The original ends in a linear layer on all 3 x 3 pixels that remain of a 48 x 48 frame; this one takes their mean.
    """
    channels = (64, 128), (256, 256), (512, 512), (512, 512)
    return VGG(channels=channels, **(VGGSettings(pool="average") | settings))


def _repeated(*numbers: int) -> list[list[int]]:
    """Return the channels of the original's stages, given their numbers of blocks."""
    return [[channels] * number for channels, number in zip((64, 128, 256, 512, 512), numbers, strict=True)]
