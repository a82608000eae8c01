"""ResNets of snnTorch: its Leaky neuron in a Python loop over the steps, each with all layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import shortback as sb
from peers import missing
from peers.resnet import Kit, ResNet

try:
    import snntorch as snn
except ModuleNotFoundError as error:
    raise missing("snntorch") from error


def build(ours: sb.SpikingNetwork) -> Network:
    """Our ResNet with the neurons of snnTorch and the same weights."""
    network = Network(ours)
    snn.SpikingNeuron.init()  # its list of all neurons there are would keep this network alive
    return network


class Network(nn.Module):
    """Runs the network once a step, the neurons keeping their membranes, and averages the logits.

    The norms see one step at a time, so in training their statistics are not those of ours.
    """

    def __init__(self, ours: sb.SpikingNetwork) -> None:
        super().__init__()
        self.num_steps = ours.num_steps
        self.net = ResNet(ours, _KIT)
        self._neurons = [module for module in self.modules() if isinstance(module, snn.Leaky)]

    def forward(self, x: Tensor) -> Tensor:
        for neuron in self._neurons:  # its own utils.reset() does not look into submodules
            neuron.reset_mem()
        return torch.stack([self.net(x) for _ in range(self.num_steps)]).mean(0)

    def double(self) -> Network:
        """In float64; its spikes are float32 whatever the input, so the layers that take them widen them first."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_pre_hook(lambda module, inputs: tuple(x.double() for x in inputs))
        return super().double()


def _leaky() -> snn.Leaky:
    """Our decay, threshold and reset to 0, with its own surrogate, and its reset kept out of the gradient.

    It applies the reset of a step when the next one comes, before the decay, so the spikes are those of ours.
    """
    return snn.Leaky(beta=sb.LIF().decay, threshold=1.0, reset_mechanism="zero", init_hidden=True)


_KIT = Kit(conv=nn.Conv2d, norm=nn.BatchNorm2d, neuron=_leaky, pool=nn.AdaptiveAvgPool2d, linear=nn.Linear)
