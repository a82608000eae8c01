"""Parts that the networks share: layers with one choice of neuron, norm and width, and stages of blocks."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TypedDict

from torch import Tensor, nn

from shortback.choices import Norm, check_choice
from shortback.errors import UserError
from shortback.models.fused import conv_norm_fire
from shortback.models.norms import TemporalEffectiveNorm, threshold_dependent
from shortback.neurons import NeuronFactory, SpikingNeuron, make_neuron


class ModelSettings(TypedDict, total=False):
    """Keyword arguments that `create_model` passes to every model."""

    num_classes: int
    num_steps: int
    in_channels: int
    neuron: NeuronFactory | None


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Makes the layers of one network.

    Args:
        num_steps: number of time steps `T` of the neurons.
        neuron: makes a neuron, see `shortback.neurons.NeuronFactory`.
        norm: `"batch"`, over time and batch together, `"tdbn"` or `"tebn"` (`shortback.models.norms`), or `"none"`,
            which gives the convolutions a bias.
        width: factor on the number of channels of every layer.

    Raises:
        ValueError: the norm is unknown, the width is not a positive number, or tdBN is used with neurons whose
            threshold is unknown.
    """

    num_steps: int
    neuron: NeuronFactory | None = None
    norm: Norm = "batch"
    width: float = 1.0

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, Norm)
        if not isinstance(self.width, Real) or isinstance(self.width, bool) or not 0 < float(self.width) < math.inf:
            raise UserError(f"width={self.width!r}: must be a positive number")

    def scale(self, channels: int) -> int:
        """Return a number of channels multiplied by the width of the network, rounded, at least 1."""
        return max(1, round(channels * self.width))

    def conv(self, in_channels: int, channels: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
        """Make a convolution that keeps the size of the image, or divides it by the stride, rounded up."""
        bias = self.norm == "none"
        return nn.Conv2d(in_channels, channels, kernel_size, stride, padding=kernel_size // 2, bias=bias)

    def normalize(self, channels: int, *, is_added: bool = False) -> nn.Module:
        """Make the norm of a layer; `is_added` says whether its output is a term of a residual sum of currents."""
        if self.norm == "tdbn":
            return threshold_dependent(channels, threshold=self._threshold, is_added=is_added)
        if self.norm == "tebn":
            return TemporalEffectiveNorm(channels, num_steps=self.num_steps)
        return nn.BatchNorm2d(channels) if self.norm == "batch" else nn.Identity()

    @functools.cached_property
    def _threshold(self) -> float:
        made = self.fire()
        neuron = next((module for module in made.modules() if isinstance(module, SpikingNeuron)), None)
        if neuron is None:
            raise UserError(
                f"norm='tdbn' initialises weights by the threshold, which is unknown for {type(made).__name__}: it is "
                "not from shortback.neurons; use norm='batch', and set the weights of the norms to the threshold"
            )
        return neuron.dynamics.threshold

    def fire(self) -> nn.Module:
        """Make a neuron."""
        return make_neuron(self.neuron, self.num_steps)


class LayerSequence(nn.Sequential):
    """An `nn.Sequential` in which a convolution, norm and neuron in a row run as one layer."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        modules = list(self)
        while modules:
            if [type(module) for module in modules[:2]] == [nn.Conv2d, nn.BatchNorm2d] and _is_neuron(modules[2:3]):
                conv, norm, neuron, *modules = modules
                x = conv_norm_fire(x, conv=conv, norm=norm, neuron=neuron)
            else:
                module, *modules = modules
                x = module(x)
        return x


def _is_neuron(modules: Sequence[nn.Module]) -> bool:
    return bool(modules) and isinstance(modules[0], SpikingNeuron)


class StagedNetwork(nn.Module):
    """A network of stages `layer1`, `layer2`, ..., one per resolution, each of blocks `0`, `1`, ...

    Args:
        num_blocks: number of blocks of each stage.
    """

    def __init__(self, num_blocks: Sequence[int]) -> None:
        super().__init__()
        self.num_blocks = tuple(num_blocks)

    def stages(self) -> list[str]:
        """Return the names of the stages, in order."""
        return [f"layer{k}" for k in range(1, len(self.num_blocks) + 1)]

    def blocks(self) -> list[str]:
        """Return the names of the blocks, in order."""
        numbered = zip(self.stages(), self.num_blocks, strict=True)
        return [f"{stage}.{i}" for stage, number in numbered for i in range(number)]


def initialize(network: nn.Module) -> None:
    """Initialise convolutions He-normal by fan-out and their biases to zero, as torchvision does, and nothing else."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
