"""ResNets of SpikingJelly: its layers in multi-step mode, its LIF neuron with our dynamics and our surrogate."""

from __future__ import annotations

from torch import Tensor, nn

import shortback as sb
from peers import missing
from peers.resnet import Block, Kit, ResNet, Stem

try:
    from spikingjelly.activation_based import functional, layer, memopt, neuron, surrogate
except ModuleNotFoundError as error:
    raise missing("spikingjelly") from error


def build(ours: sb.SpikingNetwork) -> Network:
    """Our ResNet with the layers of SpikingJelly and the same weights."""
    return Network(ours)


class Network(nn.Module):
    """Repeats the image over time, `[T, N, C, H, W]`, and averages the logits, as its examples do.

    On a GPU its neurons choose their own kernels: its CUDA extension where that was built, else Triton.
    """

    def __init__(self, ours: sb.SpikingNetwork) -> None:
        super().__init__()
        self.num_steps = ours.num_steps
        self.net = ResNet(ours, _KIT)
        functional.set_step_mode(self.net, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.net)
        return self.net(x.unsqueeze(0).expand(self.num_steps, *x.shape)).mean(0)

    def optimize_memory(self, example: Tensor) -> None:
        """Level 1 of its memory optimisation: a block keeps its input, the spikes as bits, and is computed anew."""
        memopt.optimize_memory(self, (Stem, Block), lambda network: network(example), level=1)


def _lif() -> neuron.LIFNode:
    """`tau` and `decay_input` for `u = decay * v + x`; threshold 1, reset to 0 and in the gradient, as ours."""
    return neuron.LIFNode(
        tau=1 / (1 - sb.LIF().decay), decay_input=False, surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0)
    )


_KIT = Kit(conv=layer.Conv2d, norm=layer.BatchNorm2d, neuron=_lif, pool=layer.AdaptiveAvgPool2d, linear=layer.Linear)
