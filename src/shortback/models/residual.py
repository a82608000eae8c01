r"""Residual blocks, which differ in whether the skip connection is added before or after the neuron.

Each block has two 3x3 convolutions on folded time, `[T*N, C, H, W]`. With $F$ a neuron, $B$ a convolution and its
norm, and $P$ the shortcut (the identity or, where the shape changes, a 1x1 convolution and its norm):

| kind       | output                                         | passes on    |
|------------|------------------------------------------------|--------------|
| `spiking`  | $F(B_2(F(B_1 x)) + P x)$                       | spikes       |
| `sew`      | $F(B_2(F(B_1 x))) + x$, or $+\, F(P x)$        | spike counts |
| `membrane` | $B_2(F(B_1(F x))) + P x$                       | currents     |
| `plain`    | $F(B_2(F(B_1 x)))$                             | spikes       |
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from shortback.choices import Residual
from shortback.inspection.pointwise import Subsample
from shortback.models.fused import conv_norm_fire
from shortback.models.layers import Layers, LayerSequence


class ResidualBlock(nn.Module):
    """Base class of the blocks: two convolutions with their norms and neurons, and a shortcut.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        layers: makes the layers.
        stride: stride of the first convolution.
        average_downsample: whether a shortcut with a stride averages pixels instead of skipping some.
    """

    has_shortcut: ClassVar[bool] = True
    shortcut_fires: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int,
        layers: Layers,
        stride: int = 1,
        average_downsample: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, channels, stride=stride)
        self.norm1 = layers.normalize(channels)
        self.neuron1 = layers.fire()
        self.conv2 = layers.conv(channels, channels)
        self.norm2 = layers.normalize(channels, is_added=self.has_shortcut and not self.shortcut_fires)
        self.neuron2 = layers.fire()
        if not self.has_shortcut:
            return
        self.shortcut = LayerSequence()
        if stride == 1 and in_channels == channels:
            return
        if stride != 1:  # not as the stride of the convolution, see `shortback.inspection.pointwise`
            if average_downsample:
                self.shortcut.add_module("pool", nn.AvgPool2d(stride, ceil_mode=True))
            else:
                self.shortcut.add_module("subsample", Subsample(stride))
        self.shortcut.add_module("conv", layers.conv(in_channels, channels, kernel_size=1))
        self.shortcut.add_module("norm", layers.normalize(channels, is_added=not self.shortcut_fires))
        if self.shortcut_fires:
            self.shortcut.add_module("neuron", layers.fire())


class PlainBlock(ResidualBlock):
    """No skip connection, which makes vanishing and exploding gradients of deep networks most visible."""

    has_shortcut = False

    def forward(self, x: Tensor) -> Tensor:
        x = conv_norm_fire(x, conv=self.conv1, norm=self.norm1, neuron=self.neuron1)
        return conv_norm_fire(x, conv=self.conv2, norm=self.norm2, neuron=self.neuron2)


class SpikingBlock(ResidualBlock):
    """Fires after the addition, so that only spikes are passed on; the block of the paper."""

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm_fire(x, conv=self.conv1, norm=self.norm1, neuron=self.neuron1)
        return conv_norm_fire(out, conv=self.conv2, norm=self.norm2, neuron=self.neuron2, residual=self.shortcut(x))


class SEWBlock(ResidualBlock):
    """Adds spikes to spikes (SEW-ResNet with ADD, Fang et al., NeurIPS 2021)."""

    shortcut_fires = True

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm_fire(x, conv=self.conv1, norm=self.norm1, neuron=self.neuron1)
        out = conv_norm_fire(out, conv=self.conv2, norm=self.norm2, neuron=self.neuron2)
        return out + self.shortcut(x)


class MembraneBlock(ResidualBlock):
    """Fires before each convolution and adds currents, which pass no neuron (MS-ResNet, Hu et al. 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm_fire(self.neuron1(x), conv=self.conv1, norm=self.norm1, neuron=self.neuron2)
        return self.norm2(self.conv2(out)) + self.shortcut(x)


BLOCKS: dict[Residual, type[ResidualBlock]] = {
    "spiking": SpikingBlock,
    "sew": SEWBlock,
    "membrane": MembraneBlock,
    "plain": PlainBlock,
}
