"""Networks as research repositories have them, written anew from their published descriptions.

Three habits that a library does not have: a neuron by hand that is called once a step and keeps its membrane to itself,
a neuron with a norm inside, and layers that hold weights, norm and membrane at once.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- A ResNet whose neurons are called once a step, with the time loop in the network's forward.


class RectangleSpike(torch.autograd.Function):
    """The step function, with a window around the threshold for its derivative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: float, half_width: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.threshold, ctx.half_width = threshold, half_width
        return (u > threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        inside = (u - ctx.threshold).abs() < ctx.half_width
        return grad * inside / (2 * ctx.half_width), None, None


class MemoryNeuron(nn.Module):
    """Leaky neuron that remembers its membrane until it is told to forget it."""

    def __init__(self, decay: float = 0.2, threshold: float = 0.5) -> None:
        super().__init__()
        self.decay, self.threshold = decay, threshold
        self.membrane: Tensor | None = None

    def reset(self) -> None:
        self.membrane = None

    def forward(self, current: Tensor) -> Tensor:
        u = current if self.membrane is None else self.decay * self.membrane + current
        spikes = RectangleSpike.apply(u, self.threshold, 0.5)
        self.membrane = u * (1 - spikes)
        return spikes


class StepBlock(nn.Module):
    """Two convolutions and a shortcut, for one time step."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.spike1 = MemoryNeuron()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.spike2 = MemoryNeuron()
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.spike1(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.spike2(out)


class StepResNet(nn.Module):
    """Direct coding: the image at every step, and the average of the outputs of all."""

    def __init__(self, num_steps: int, num_classes: int = 10, channels: int = 4) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.conv1 = nn.Conv2d(1, channels, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.spike = MemoryNeuron()
        self.channels = channels
        self.layer1 = self._stage(channels, num_blocks=2, stride=1)
        self.layer2 = self._stage(2 * channels, num_blocks=2, stride=2)
        self.layer3 = self._stage(4 * channels, num_blocks=2, stride=2)
        self.fc = nn.Linear(4 * channels, num_classes)

    def _stage(self, channels: int, *, num_blocks: int, stride: int) -> nn.Sequential:
        blocks = []
        for index in range(num_blocks):
            blocks.append(StepBlock(self.channels, channels, stride if index == 0 else 1))
            self.channels = channels
        return nn.Sequential(*blocks)

    def one_step(self, x: Tensor) -> Tensor:
        x = self.spike(self.norm1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        for module in self.modules():
            if isinstance(module, MemoryNeuron):
                module.reset()
        return torch.stack([self.one_step(x) for _ in range(self.num_steps)], 1)  # [N, T, K]


# --- A ResNet on sequences whose neurons hold a batch norm: the membrane is normalised before it fires.


class NormedMembraneNeuron(nn.Module):
    """`[N, T, C, H, W]` of currents to spikes: the membrane passes a batch norm of its own at every step."""

    def __init__(self, channels: int, decay: float = 0.25, threshold: float = 0.5) -> None:
        super().__init__()
        self.decay, self.threshold = decay, threshold
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, currents: Tensor) -> Tensor:
        membrane, out = torch.zeros_like(currents[:, 0]), []
        for step in range(currents.shape[1]):
            membrane = self.decay * membrane + currents[:, step]
            spikes = RectangleSpike.apply(self.norm(membrane), self.threshold, 0.5)
            membrane = membrane * (1 - spikes)
            out.append(spikes)
        return torch.stack(out, 1)


class OverTime(nn.Module):
    """Runs layers without time on `[N, T, ...]`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def conv_norm(in_channels: int, channels: int, *, stride: int = 1, kernel_size: int = 3) -> OverTime:
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, padding, bias=False)
    return OverTime(conv, nn.BatchNorm2d(channels))


class SequenceBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.spike1 = conv_norm(in_channels, channels, stride=stride), NormedMembraneNeuron(channels)
        self.conv2, self.spike2 = conv_norm(channels, channels), NormedMembraneNeuron(channels)
        changes = stride != 1 or in_channels != channels
        self.shortcut = conv_norm(in_channels, channels, stride=stride, kernel_size=1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.spike2(self.conv2(self.spike1(self.conv1(x))) + self.shortcut(x))


class SequenceResNet(nn.Module):
    """Blocks by number of stage in a plain list, so that no container is ever called."""

    def __init__(self, num_steps: int, num_classes: int = 10, channels: int = 16) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.stem, self.stem_spike = conv_norm(1, channels, stride=2), NormedMembraneNeuron(channels)
        stages, width = [], channels
        for stage in range(3):
            blocks = []
            for index in range(2):
                blocks.append(SequenceBlock(width, channels * 2**stage, 2 if stage and not index else 1))
                width = channels * 2**stage
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)
        self.readout = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            x = x.unsqueeze_(1).repeat(1, self.num_steps, 1, 1, 1)
        x = self.stem_spike(self.stem(x))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.readout(x.mean((3, 4)))  # [N, T, K]


# --- A recurrent network for audio: layers that hold weights, norm, recurrence and membrane, and fire inside.


class RecurrentLayer(nn.Module):
    """Adaptive leaky neurons with a linear map in front and one back to themselves, `[N, T, F] -> [N, T, H]`."""

    def __init__(self, in_features: int, features: int, threshold: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.features, self.threshold = features, threshold
        self.feed = nn.Linear(in_features, features, bias=False)
        self.norm = nn.BatchNorm1d(features, momentum=0.05)
        self.back = nn.Linear(features, features, bias=False)
        nn.init.orthogonal_(self.back.weight)
        self.alpha = nn.Parameter(torch.empty(features).uniform_(0.82, 0.96))
        self.beta = nn.Parameter(torch.empty(features).uniform_(0.97, 0.99))
        self.a = nn.Parameter(torch.empty(features).uniform_(-0.1, 0.1))
        self.b = nn.Parameter(torch.empty(features).uniform_(0.0, 0.2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        currents = self.feed(x)
        currents = self.norm(currents.flatten(0, 1)).unflatten(0, currents.shape[:2])
        return self.dropout(self._over_time(4 * currents))

    def _over_time(self, currents: Tensor) -> Tensor:
        u, w, s = (currents.new_zeros(len(currents), self.features) for _ in range(3))
        alpha, beta = self.alpha.clamp(0.8, 0.97), self.beta.clamp(0.96, 0.995)
        out = []
        for current in currents.unbind(1):
            w = beta * w + self.a * u + self.b * s
            u = alpha * (u - s) + (1 - alpha) * (current + self.back(s) - w)
            s = RectangleSpike.apply(u, self.threshold, 0.5)
            out.append(s)
        return torch.stack(out, 1)


class SoftReadout(nn.Module):
    """Leaky integrators that do not fire; the output is the sum over time of the softmax of their membranes."""

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.map = nn.Linear(in_features, features, bias=False)
        self.norm = nn.BatchNorm1d(features)
        self.alpha = nn.Parameter(torch.empty(features).uniform_(0.82, 0.96))

    def forward(self, x: Tensor) -> Tensor:
        currents = self.map(x)
        currents = self.norm(currents.flatten(0, 1)).unflatten(0, currents.shape[:2])
        u, out = currents.new_zeros(len(x), currents.shape[2]), currents.new_zeros(len(x), currents.shape[2])
        for current in currents.unbind(1):
            u = self.alpha * u + (1 - self.alpha) * current
            out = out + u.softmax(1)
        return out


class AudioNetwork(nn.Module):
    """`[N, T, F]` of a sound's features to one score a class, `[N, K]`."""

    def __init__(self, in_features: int, features: int = 32, num_layers: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        sizes = [in_features] + num_layers * [features]
        self.snn = nn.ModuleList([RecurrentLayer(a, b) for a, b in itertools.pairwise(sizes)])
        self.snn.append(SoftReadout(features, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.snn:
            x = layer(x)
        return x
