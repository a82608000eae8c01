"""Small networks whose deep layers fire, for exports: statistics of batch norms make them."""

import functools

import torch
from torch import nn

import shortback as sb
from shortback.neurons import SpikingNeuron

LIF = functools.partial(sb.LIF, decay=0.5)


class Twice(nn.Module):
    """A residual block that calls one ReLU twice, as torchvision's do."""

    def __init__(self, channels, *, stride=1, inputs=None):
        super().__init__()
        inputs = inputs or channels
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Conv2d(inputs, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class Foreign(nn.Module):
    """What others write: a pooling of spikes, shared activations, a norm of no convolution, a mean over pixels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.block1, self.block2 = Twice(8), Twice(12, stride=2, inputs=8)
        self.norm, self.act, self.fc = nn.BatchNorm2d(12), nn.ReLU(), nn.Linear(12, 10)

    def forward(self, x):
        x = self.act(self.norm(self.block2(self.block1(self.stem(x)))))
        return self.fc(x.mean([2, 3]))


def foreign(num_steps=3, **settings):
    return sb.spikify(Foreign(), num_steps=num_steps, neuron=functools.partial(sb.LIF, decay=0.5, **settings))


def network(name, *, num_steps=3, neuron=LIF, **settings):
    torch.manual_seed(0)
    if name == "foreign":
        return fires(foreign(num_steps))
    return fires(sb.create_model(name, num_steps=num_steps, neuron=neuron, width=0.25, **settings))


def fires(model, size=32):
    """The network in `eval()` after statistics of noise, and weights that are no round numbers.

    Its neurons are the reference: an export writes what they compute, and each kind would be compiled for it alone.
    """
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, SpikingNeuron):
            module.backend = "reference"
    model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.6)
                module.bias.uniform_(0, 0.4)
                module.momentum = 0.5
        for _ in range(12):
            model(torch.randn(8, 3, size, size))
    return model.eval()


def images(count=4, *, num_steps=None):
    generator = torch.Generator().manual_seed(1)
    shape = (count, 3, 32, 32) if num_steps is None else (num_steps, count, 3, 32, 32)
    return torch.randn(shape, generator=generator)
