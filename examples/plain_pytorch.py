"""A spiking ResNet-18 trained with shortback, in plain PyTorch: python examples/plain_pytorch.py FOLDER

FOLDER has the `config.json` and `model.safetensors` that `shortback publish` writes. Nothing of shortback is imported:
this file contains the whole network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

EPSILON = 1e-5


class ResNet18:
    """Spiking ResNet-18 with a hard reset to zero, for images `[N, C, H, W]` normalised as in `config.json`."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())["model"]
        neuron = config["neuron"]
        is_written_here = (
            config["name"] == "resnet18"
            and config.get("residual", "spiking") == "spiking"
            and config.get("norm", "batch") == "batch"
            and config.get("stem", "cifar") == "cifar"
            and (neuron["kind"], neuron["reset"]) == ("lif", "hard")
            and neuron["reset_to"] == neuron["initial"] == 0
            and not (neuron["fires_above"] or neuron["decay_input"])
        )
        if not is_written_here:
            raise ValueError(f"this file does not implement the network in config.json: {config}")
        self.num_steps: int = config["num_steps"]
        self.decay, self.threshold = neuron.get("decay", 0.25), neuron["threshold"]
        self.weights = load_file(folder / "model.safetensors")

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits `[N, K]`, the mean over the steps."""
        self.membranes: dict[str, Tensor | float] = {}
        return torch.stack([self.step(images) for _ in range(self.num_steps)]).mean(0)

    def step(self, x: Tensor) -> Tensor:
        x = self.fire("stem.neuron1", self.norm("stem.norm1", self.convolve("stem.conv1", x)))
        for stage in range(1, 5):
            for block in range(2):
                x = self.block(f"layer{stage}.{block}", x, stride=2 if stage > 1 and block == 0 else 1)
        return F.linear(x.mean((2, 3)), self.of("fc.weight"), self.of("fc.bias"))

    def block(self, name: str, x: Tensor, *, stride: int) -> Tensor:
        out = self.norm(f"{name}.norm1", self.convolve(f"{name}.conv1", x, stride=stride))
        out = self.norm(f"{name}.norm2", self.convolve(f"{name}.conv2", self.fire(f"{name}.neuron1", out)))
        if stride == 2:
            x = self.norm(f"{name}.shortcut.norm", self.convolve(f"{name}.shortcut.conv", x, stride=2))
        return self.fire(f"{name}.neuron2", out + x)

    def fire(self, name: str, current: Tensor) -> Tensor:
        """`u[t] = decay * u[t-1] * (1 - s[t-1]) + I[t]`, `s[t] = u[t] >= threshold`."""
        membrane = self.decay * self.membranes.get(name, 0.0) + current
        spikes = (membrane >= self.threshold).to(current.dtype)
        self.membranes[name] = membrane * (1 - spikes)
        return spikes

    def convolve(self, name: str, x: Tensor, *, stride: int = 1) -> Tensor:
        weight = self.of(f"{name}.weight")
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.of(f"{name}.{key}") for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=EPSILON)

    def of(self, name: str) -> Tensor:
        return self.weights[f"network.{name}"]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    network = ResNet18(place)
    channels = json.loads((place / "config.json").read_text())["in_channels"]
    print(network(torch.randn(2, channels, 32, 32)))
