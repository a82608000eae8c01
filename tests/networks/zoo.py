"""Networks of other libraries as their users write them: how to make them, and what to give `attach`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortback as sb
from tests.networks.research import AudioNetwork, SequenceResNet, StepResNet

T = 3


@dataclass(frozen=True)
class Case:
    """A network `make()` for images `[N, 1, 28, 28]` that `prepare` turns into what it takes."""

    make: Callable[[], nn.Module]
    prepare: Callable[[Tensor], Tensor] = lambda images: images
    settings: dict[str, Any] = field(default_factory=dict)
    places: int = 1  # at least so many
    lr: float = 2e-3
    neurons: int = 0  # at least so many that fire
    steps: int = T  # of their gradient: 1 where the layout tells of no time


def time_first(images: Tensor) -> Tensor:
    return images.expand(T, *images.shape).clone()


def batch_first(images: Tensor) -> Tensor:
    return time_first(images).transpose(0, 1).contiguous()


def batch_major(images: Tensor) -> Tensor:
    return batch_first(images).flatten(0, 1)


# --- SpikingJelly


def _jelly(name: str):
    return pytest.importorskip(f"spikingjelly.activation_based.{name}")


def sew_resnet18() -> nn.Module:
    neuron, functional, surrogate = _jelly("neuron"), _jelly("functional"), _jelly("surrogate")
    settings = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    net = _jelly("model.sew_resnet").sew_resnet18(spiking_neuron=neuron.LIFNode, cnf="ADD", num_classes=10, **settings)
    net.conv1 = _jelly("layer").Conv2d(1, 64, 3, padding=1, bias=False)
    functional.set_step_mode(net, "m")
    return net


@functools.cache
def vgg11() -> nn.Module:
    """Narrow, and made once: its class draws a classifier of 120 million weights, which takes longer than a test."""
    neuron, surrogate, layer = _jelly("neuron"), _jelly("surrogate"), _jelly("layer")
    widths = [16, "M", 32, "M", 64, 64, "M", 64, 64, "M", 64, 64, "M"]
    settings = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    net = _jelly("model.spiking_vgg").SpikingVGG(widths, batch_norm=True, spiking_neuron=neuron.LIFNode, **settings)
    net.features[0] = layer.Conv2d(1, 16, 3, padding=1)
    net.classifier = nn.Sequential(layer.Flatten(), layer.Linear(64, 10))
    net.avgpool = layer.AdaptiveAvgPool2d(1)
    return net


def spiking_vgg11(step_mode: str) -> nn.Module:
    net = copy.deepcopy(vgg11())
    _jelly("functional").set_step_mode(net, step_mode)
    return net if step_mode == "m" else OverSteps(net)


def spikformer() -> nn.Module:
    return _jelly("model.spikformer").Spikformer(
        T=T, in_channels=1, img_size_h=32, img_size_w=32, patch_size=4, embed_dims=32, num_heads=4, depths=2,
        num_classes=10,
    )  # fmt: skip


class OverSteps(nn.Module):
    """Calls a network once a step on the same image, and returns the outputs of all steps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.network(x) for _ in range(T)]


# --- snnTorch


class HiddenState(nn.Module):
    """A convolutional network of snnTorch whose neurons keep their membranes to themselves."""

    def __init__(self) -> None:
        super().__init__()
        snn = pytest.importorskip("snntorch")
        neuron = {"beta": 0.9, "threshold": 0.3, "init_hidden": True}
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), snn.Leaky(**neuron),
            nn.Conv2d(8, 16, 5), nn.MaxPool2d(2), snn.Leaky(**neuron),
            nn.Flatten(), nn.Linear(256, 10), snn.Leaky(**neuron, output=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spikes, membranes = zip(*(self.layers(x) for _ in range(T)), strict=True)
        return torch.stack(membranes), torch.stack(spikes)


class SpikesAndMembrane(nn.Module):
    """A network of snnTorch as its tutorials have it: neurons take and return their membranes."""

    def __init__(self) -> None:
        super().__init__()
        snn = pytest.importorskip("snntorch")
        self.conv1, self.lif1 = nn.Conv2d(1, 8, 5), snn.Leaky(beta=0.9, threshold=0.3)
        self.conv2, self.lif2 = nn.Conv2d(8, 16, 5), snn.Leaky(beta=0.9, threshold=0.3)
        self.fc, self.lif3 = nn.Linear(256, 10), snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        m1, m2, m3 = (lif.reset_mem() for lif in (self.lif1, self.lif2, self.lif3))
        spikes, membranes = [], []
        for _ in range(T):
            s1, m1 = self.lif1(nn.functional.max_pool2d(self.conv1(x), 2), m1)
            s2, m2 = self.lif2(nn.functional.max_pool2d(self.conv2(s1), 2), m2)
            s3, m3 = self.lif3(self.fc(s2.flatten(1)), m3)
            spikes.append(s3)
            membranes.append(m3)
        return torch.stack(membranes), torch.stack(spikes)


# --- Norse


def norse_lifted() -> nn.Module:
    norse = pytest.importorskip("norse.torch")
    p = norse.LIFParameters(v_th=torch.tensor(0.1))
    return norse.SequentialState(
        norse.Lift(nn.Conv2d(1, 8, 5, 2)), norse.LIF(p=p),
        norse.Lift(nn.Conv2d(8, 16, 5, 2)), norse.LIF(p=p),
        nn.Flatten(2), nn.Linear(256, 10), norse.LI(),
    )  # fmt: skip


class NorseCells(nn.Module):
    """Norse's cells, called once a step with the states handed on."""

    def __init__(self) -> None:
        super().__init__()
        norse = pytest.importorskip("norse.torch")
        p = norse.LIFParameters(v_th=torch.tensor(0.1))
        self.network = norse.SequentialState(
            nn.Conv2d(1, 8, 5, 2), norse.LIFCell(p=p), nn.Conv2d(8, 16, 5, 2), norse.LIFCell(p=p),
            nn.Flatten(), nn.Linear(256, 10), norse.LICell(),
        )  # fmt: skip

    def forward(self, sequence: Tensor) -> Tensor:
        state, out = None, []
        for x in sequence:
            y, state = self.network(x, state)
            out.append(y)
        return torch.stack(out)


# --- sinabs, in an environment of its own


def sinabs_squeezed() -> nn.Module:
    from_torch = pytest.importorskip("sinabs.from_torch")
    ann = nn.Sequential(
        nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )
    return from_torch.from_model(ann, num_timesteps=T, spike_threshold=torch.tensor(0.3))


class SinabsLayers(nn.Module):
    """sinabs's layers on `[N, T, ...]`."""

    def __init__(self) -> None:
        super().__init__()
        layers = pytest.importorskip("sinabs.layers")
        lif = {"tau_mem": 5.0, "spike_threshold": torch.tensor(0.3), "norm_input": False}
        self.network = nn.Sequential(
            layers.Repeat(nn.Conv2d(1, 8, 5, 2)), layers.LIF(**lif),
            layers.Repeat(nn.Conv2d(8, 16, 5, 2)), layers.LIF(**lif),
            nn.Flatten(2), nn.Linear(256, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


# --- networks without time


def timm_model(name: str, **settings: Any) -> nn.Module:
    return pytest.importorskip("timm").create_model(name, num_classes=10, in_chans=1, **settings)


def spikified(ann: nn.Module) -> nn.Module:
    return sb.spikify(ann, num_steps=T, neuron=functools.partial(sb.LIF, threshold=0.5, backend="reference"))


def swin() -> nn.Module:
    return timm_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7, depths=(2, 2, 2, 2), embed_dim=24)


def torchvision_resnet18() -> nn.Module:
    return pytest.importorskip("torchvision").models.resnet18(num_classes=10)


def three_channels(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1).clone()


def of_size(size: int) -> Callable[[Tensor], Tensor]:
    return lambda images: nn.functional.interpolate(images, size=size)


def as_sound(images: Tensor) -> Tensor:
    """The rows of an image as the features of so many steps, `[N, T, F]`."""
    return images.squeeze(1)


CASES = {
    "sew_resnet18": Case(sew_resnet18, time_first, {"reduce": "mean"}, places=7, neurons=15),
    "spiking_vgg11": Case(
        lambda: spiking_vgg11("m"), lambda x: time_first(of_size(32)(x)), {"reduce": "mean"}, 7, neurons=7
    ),
    "spiking_vgg11_by_step": Case(lambda: spiking_vgg11("s"), of_size(32), {"reduce": "mean"}, 7, neurons=7),
    "spikformer": Case(spikformer, lambda x: time_first(of_size(32)(x)), {"reduce": "mean"}, 5, neurons=10),
    "snntorch_hidden": Case(HiddenState, settings={"reduce": "sum"}, places=2, neurons=2),
    "snntorch_membranes": Case(SpikesAndMembrane, settings={"reduce": "sum"}, places=2, neurons=2),
    "norse_lifted": Case(norse_lifted, time_first, {"reduce": "last"}, 2, lr=1e-2, neurons=2),
    "norse_cells": Case(NorseCells, time_first, {"reduce": "last"}, 2, lr=1e-2, neurons=2),
    "sinabs_squeezed": Case(sinabs_squeezed, batch_major, {"reduce": "mean", "num_steps": T}, 1, neurons=1),
    "sinabs_layers": Case(SinabsLayers, batch_first, {"reduce": "mean"}, 1, neurons=1),
    "research_steps": Case(lambda: StepResNet(T), of_size(16), {"reduce": "mean"}, places=5, neurons=13),
    "research_normed_membrane": Case(lambda: SequenceResNet(T), of_size(16), {"reduce": "mean"}, 5, neurons=13),
    "research_audio": Case(lambda: AudioNetwork(28), as_sound, places=2, lr=1e-2, neurons=3, steps=28),
    "timm_resnet18": Case(lambda: timm_model("resnet18"), places=7),
    "timm_mobilenet": Case(lambda: timm_model("mobilenetv3_small_050"), of_size(64), places=8),
    "timm_convnext": Case(lambda: timm_model("convnext_atto"), of_size(64), places=8),
    "timm_vit": Case(lambda: timm_model("vit_tiny_patch16_224", img_size=32, patch_size=8), of_size(32), places=8),
    "timm_swin": Case(swin, of_size(56), places=7),
    "spikified_resnet18": Case(lambda: spikified(timm_model("resnet18")), of_size(32), places=7, neurons=15),
    "spikified_mobilenet": Case(
        lambda: spikified(timm_model("mobilenetv3_small_050")), of_size(64), places=8, neurons=10
    ),
    "spikified_convnext": Case(lambda: spikified(timm_model("convnext_atto")), of_size(64), places=8, neurons=11),
    "torchvision_resnet18": Case(torchvision_resnet18, three_channels, places=7),
}
