"""What is timed: a network with its batch, variants of running it, and their training and inference steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shortback as sb
from harness import Device, Settings, Side
from shortback.choices import Compile, Memory
from shortback.training import Execution, choose_execution

Library = Literal["shortback", "relu", "spikingjelly", "snntorch"]
TrainStep = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A network by name, its number of time steps, and a batch of random images or event frames."""

    model: str
    batch_size: int
    num_steps: int = 4
    image_size: int = 32
    width: float = 1.0
    events: bool = False

    def __str__(self) -> str:
        return f"{self.model} b{self.batch_size} T{self.num_steps}"

    def network(self, **settings: Any) -> sb.SpikingNetwork:
        """The network, with the same weights each time."""
        torch.manual_seed(0)
        settings = {"num_steps": self.num_steps, "width": self.width, **settings}
        return sb.create_model(self.model, num_classes=10, in_channels=2 if self.events else 3, **settings)

    def images(self, size: int | None = None) -> tuple[Tensor, Tensor]:
        """Images `[N, 3, H, W]` or frames `[T, N, 2, H, W]`, and classes `[N]`; N is `size`, or else `batch_size`."""
        size = size or self.batch_size
        generator = torch.Generator().manual_seed(0)
        if self.events:
            shape = (self.num_steps, size, 2, self.image_size, self.image_size)
            x = torch.poisson(torch.full(shape, 0.5), generator=generator)
        else:
            x = torch.randn(size, 3, self.image_size, self.image_size, generator=generator)
        return x, torch.randint(0, 10, (size,), generator=generator)


QUICK = Workload(model="resnet20", batch_size=4, num_steps=2, image_size=16, width=0.25)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a workload is run: everything that may differ between the sides of a comparison, as plain values.

    Args:
        library: `"shortback"`, a peer, or `"relu"`, the ANN twin: our network with a ReLU for every neuron, which takes
            the images repeated over time as one batch of `T*N`.
        precision, channels_last, compile, memory: see `shortback.training.choose_execution`; a `memory` of None is the
            default. A peer compiles its whole model or nothing.
        branches: where shortcut branches are attached, if at all.
        recompute: use level 1 of SpikingJelly's memory optimisation.
    """

    library: Library = "shortback"
    device: Device = "cpu"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    compile: Compile = "neuron"
    memory: Memory | None = None
    branches: Literal["blocks", "stages"] | None = None
    recompute: bool = False

    def execution(self) -> Execution:
        memory: dict[str, Any] = {} if self.memory is None else {"memory": self.memory}
        return choose_execution(
            device=self.device,
            precision=self.precision,
            channels_last=self.channels_last,
            compile=self.compile,
            **memory,
        )


def workloads(settings: Settings, *full: Workload) -> list[Workload]:
    """The cases that the settings ask for."""
    if settings.quick:
        return [QUICK]
    if settings.batch_size is not None:
        full = tuple(replace(work, batch_size=settings.batch_size) for work in full)
    return [work for work in full if settings.asks_for(work)]


def batch(work: Workload, variant: Variant, *, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Images and classes, on the device and in the layout of a variant."""
    x, y = work.images(size)
    if variant.library == "relu":
        x, y = x.repeat(work.num_steps, 1, 1, 1), y.repeat(work.num_steps)
    memory_format = torch.channels_last if variant.channels_last and x.ndim == 4 else torch.contiguous_format
    return x.to(variant.device, memory_format=memory_format), y.to(variant.device)


def build(work: Workload, variant: Variant) -> nn.Module:
    """The module to call, in training mode and on its device; it maps images to logits or to `Outputs`."""
    execution = variant.execution()
    if variant.library == "shortback":
        net: nn.Module = work.network().to(execution.device)
        if variant.branches is not None:
            net = sb.attach(net, at=variant.branches, sample=batch(work, variant, size=2)[0])
        return execution.prepare(net.train())
    if variant.library == "relu":
        net = work.network(neuron=lambda num_steps: nn.ReLU(inplace=True)).network
        return execution.prepare(net.to(execution.device).train())
    peer = importlib.import_module(f"peers.{variant.library}").build(work.network()).to(execution.device).train()
    if execution.channels_last:
        peer.to(memory_format=torch.channels_last)
    if variant.recompute:
        peer.optimize_memory(batch(work, variant, size=2)[0])
    if execution.compile == "model":
        peer.net.compile()
    return peer


def training_step(work: Workload, variant: Variant) -> TrainStep:
    """A function that does forward, loss, backward and optimizer step on a batch, and returns the loss."""
    net, execution = build(work, variant), variant.execution()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> Tensor:
        with autocast(execution):
            outputs = net(x)
        if variant.library == "shortback":
            loss = sb.shortcut_loss(outputs, y, coefficient=0.5).total
        else:
            loss = F.cross_entropy(outputs, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def diagnosis(work: Workload, variant: Variant) -> Callable[[Tensor, Tensor], sb.GradientReport]:
    """A function that diagnoses the network on a batch, without trials."""
    net, execution = build(work, variant), variant.execution()

    def call(x: Tensor, y: Tensor) -> sb.GradientReport:
        with autocast(execution):
            return sb.diagnose(net, x, y, suggest=False)

    return call


def inference_step(net: nn.Module, execution: Execution) -> Callable[[Tensor], Tensor]:
    """A function that computes the logits of a batch, without autograd."""
    net.eval()

    @torch.inference_mode()
    def step(x: Tensor) -> Tensor:
        with autocast(execution):
            return net(x)

    return step


def training_side(name: str, work: Workload, variant: Variant, *, may_fail: bool = False) -> Side:
    """A side of `compare` that trains."""
    return Side(name, lambda: partial(training_step(work, variant), *batch(work, variant)), may_fail)


def inference_side(name: str, work: Workload, variant: Variant, *, may_fail: bool = False) -> Side:
    """A side of `compare` that infers."""

    def set_up() -> Callable[[], Tensor]:
        return partial(inference_step(build(work, variant), variant.execution()), batch(work, variant)[0])

    return Side(name, set_up, may_fail)


def autocast(execution: Execution) -> torch.autocast:
    return torch.autocast(execution.device, torch.bfloat16, enabled=execution.precision == "bf16")
