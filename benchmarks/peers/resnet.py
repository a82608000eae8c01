"""The topology of our ResNets (stem of CIFAR, blocks of the kind `spiking`), from the layers of another library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

import shortback as sb


@dataclass(frozen=True, kw_only=True)
class Kit:
    """The layers of a library, each with the arguments of PyTorch's; `neuron` takes none."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    neuron: Callable[[], nn.Module]
    pool: Callable[..., nn.Module]
    linear: Callable[..., nn.Module]


class Stem(nn.Module):
    def __init__(self, in_channels: int, channels: int, kit: Kit) -> None:
        super().__init__()
        self.conv1 = kit.conv(in_channels, channels, 3, padding=1, bias=False)
        self.norm1 = kit.norm(channels)
        self.neuron1 = kit.neuron()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron1(self.norm1(self.conv1(x)))


class Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int, kit: Kit) -> None:
        super().__init__()
        self.conv1 = kit.conv(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = kit.norm(channels)
        self.neuron1 = kit.neuron()
        self.conv2 = kit.conv(channels, channels, 3, padding=1, bias=False)
        self.norm2 = kit.norm(channels)
        self.neuron2 = kit.neuron()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.add_module("conv", kit.conv(in_channels, channels, 1, stride=stride, bias=False))
            self.shortcut.add_module("norm", kit.norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.neuron1(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return self.neuron2(out + self.shortcut(x))


class ResNet(nn.Module):
    """One of our ResNets with the same weights and mode; its submodules have the names of ours.

    Shape:
        `[..., C, H, W] -> [..., K]`, with as many axes in front as the library's layers take.
    """

    def __init__(self, ours: sb.SpikingNetwork, kit: Kit) -> None:
        super().__init__()
        weights = ours.network.state_dict()
        channels, in_channels, *_ = weights["stem.conv1.weight"].shape
        self.stem = Stem(in_channels, channels, kit)
        self.stages = ours.network.stages()
        for i, stage in enumerate(self.stages):
            self.add_module(stage, nn.Sequential())
            for j in range(ours.network.num_blocks[i]):
                wide = len(weights[f"{stage}.{j}.conv1.weight"])
                self.get_submodule(stage).append(Block(channels, wide, 2 if i and not j else 1, kit))
                channels = wide
        self.pool = kit.pool(1)
        self.fc = kit.linear(channels, len(weights["fc.bias"]))
        # A library's neurons may hold their constants as buffers; all else must be what ours has, and no more.
        assert [name for name in self.state_dict() if "neuron" not in name] == list(weights)
        self.load_state_dict(weights, strict=False)
        self.train(ours.training)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.fc(self.pool(x).flatten(-3))
