r"""What an inference costs in operations, and in the energy of its arithmetic.

A layer whose inputs are zeros and ones accumulates (AC) one weight for every spike and every output that spike reaches;
any other layer multiplies and accumulates (MAC). Both are counted exactly: a spike at the edge reaches fewer outputs
than one in the middle, and with a stride most reach fewer than the kernel has, so the usual product of spikes and
fan-out is too much.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.neurons import SpikingNeuron
from shortback.spiking import SpikingNetwork
from shortback.spiking.static_input import shared_copy

MAC_PJ, AC_PJ = 4.6, 0.9
"""Energy of a 32-bit floating-point multiply-accumulate and of an accumulate in 45 nm (Horowitz, ISSCC 2014), in pJ."""


@dataclass
class LayerOperations:
    """Of one layer with weights, an image: all steps together.

    Attributes:
        name: within the network.
        spiking_input: its inputs were zeros and ones in all batches.
        input_rate: fraction of its inputs that are not zero.
        dense: operations if no input were zero.
        macs: multiply-accumulates, on inputs that are not zero and no spikes.
        acs: accumulates, on spikes.
    """

    name: str
    spiking_input: bool = True
    input_rate: float = 0.0
    dense: float = 0.0
    macs: float = 0.0
    acs: float = 0.0

    @property
    def sparsity(self) -> float:
        """Fraction of the inputs that are zero."""
        return 1 - self.input_rate


@dataclass
class Operations:
    """What an image costs on average.

    Attributes:
        num_steps: `T`.
        images: counted over.
        layers: those with weights, in the order of their first calls.
        firing_rate: by neuron, spikes a neuron and step.
        parameter_bytes: of the network, norms included.
        buffer_bytes: of the network, such as statistics of norms.
        state_bytes: of the membranes of one image, in float32.
        dense_of_ann: multiply-accumulates of the same network as an ANN: every layer once.
        not_counted: modules with weights that are neither `Conv2d` nor `Linear`; norms are folded and cost nothing.
    """

    num_steps: int
    images: int
    layers: list[LayerOperations] = field(default_factory=list)
    firing_rate: dict[str, float] = field(default_factory=dict)
    parameter_bytes: int = 0
    buffer_bytes: int = 0
    state_bytes: int = 0
    dense_of_ann: float = 0.0
    not_counted: list[str] = field(default_factory=list)

    @property
    def dense(self) -> float:
        return sum(layer.dense for layer in self.layers)

    @property
    def macs(self) -> float:
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        return sum(layer.acs for layer in self.layers)

    @property
    def arithmetic_uj(self) -> float:
        """Energy of the arithmetic alone, in uJ an image: no data is moved in it."""
        return (MAC_PJ * self.macs + AC_PJ * self.acs) * 1e-6

    @property
    def arithmetic_uj_of_ann(self) -> float:
        """The same for the network as an ANN, dense."""
        return MAC_PJ * self.dense_of_ann * 1e-6

    @property
    def break_even_rate(self) -> float:
        """Rate of the inputs below which all steps of a spiking layer take less arithmetic than one of an ANN.

        With the movement of data it is much lower: 5.7 % at T=5 by arXiv 2409.08290.
        """
        return min(1.0, MAC_PJ / (AC_PJ * self.num_steps))

    def to_dict(self) -> dict[str, Any]:
        names = ("dense", "macs", "acs", "arithmetic_uj", "arithmetic_uj_of_ann", "break_even_rate")
        return asdict(self) | {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Operations:
        """What `to_dict` made."""
        known: dict[str, Any] = {each.name: content[each.name] for each in fields(cls)}
        known["layers"] = [LayerOperations(**layer) for layer in known["layers"]]
        return cls(**known)

    def __str__(self) -> str:
        width = max([len(layer.name) for layer in self.layers] + [5])
        lines = [f"{'layer':{width}}  {'input':>7}  {'dense':>9}  {'MACs':>9}  {'ACs':>9}"]
        rows = [(layer.name, layer.input_rate, layer.dense, layer.macs, layer.acs) for layer in self.layers]
        for name, rate, *numbers in rows:
            lines.append(f"{name:{width}}  {rate:7.2%}  " + "  ".join(f"{_short(number):>9}" for number in numbers))
        totals = "  ".join(f"{_short(number):>9}" for number in (self.dense, self.macs, self.acs))
        lines.append(f"{'all':{width}}  {'':7}  {totals}")
        lines.append(
            f"arithmetic only, no data movement (45 nm): {self.arithmetic_uj:.3g} uJ an image; as an ANN "
            f"{self.arithmetic_uj_of_ann:.3g} uJ. At T={self.num_steps} a layer pays below a rate of "
            f"{self.break_even_rate:.1%} (with data movement far below: 5.7 % at T=5, arXiv 2409.08290)"
        )
        lines.append(
            f"parameters {self.parameter_bytes / 1e6:.3g} MB, buffers {self.buffer_bytes / 1e6:.3g} MB, "
            f"membranes {self.state_bytes / 1e6:.3g} MB an image"
        )
        if self.not_counted:
            lines.append(f"not counted: {', '.join(self.not_counted)}")
        return "\n".join(lines)


def count_operations(model: SpikingNetwork, batches: Iterable[Tensor | tuple[Tensor, Any]]) -> Operations:
    """Count the operations of a network, averaged over images.

    What comes before the first neurons runs once for a static image, and is counted once.

    Args:
        batches: of images `[N, C, H, W]` or sequences `[T, N, C, H, W]`, or of tuples that begin with one.

    Raises:
        ValueError: no `SpikingNetwork`, or no image.
    """
    if not isinstance(model, SpikingNetwork):
        raise UserError(
            f"count_operations() takes a SpikingNetwork without branches, and this is {type(model).__name__}"
        )
    copied = shared_copy(model).eval()
    assert isinstance(copied, SpikingNetwork)
    count = _Count(copied)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        for batch in batches:
            x = (batch if isinstance(batch, Tensor) else batch[0]).to(device)
            copied(x)
            count.images += x.shape[x.ndim - 4]
            count.batches += 1
    if not count.images:
        raise UserError("count_operations(): there is no image in the batches")
    return count.result(model)


class _Count:
    """Hooks on the layers and neurons of a copy, and what they saw."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.num_steps, self.images, self.batches = network.num_steps, 0, 0
        self.layers: dict[str, _Sums] = {}
        self.spikes: dict[str, tuple[Tensor, int]] = {}
        self.not_counted: list[str] = []
        for name, module in network.network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(functools.partial(self._layer, name))
            elif isinstance(module, SpikingNeuron):
                module.on_spikes = functools.partial(self._neuron, name)
            elif not isinstance(module, nn.modules.batchnorm._BatchNorm) and any(
                p.ndim > 1 for p in module.parameters(recurse=False)
            ):
                self.not_counted.append(f"{name} ({type(module).__name__})")

    def _layer(self, name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        (x,) = inputs
        sums = self.layers.setdefault(name, _Sums())
        effective, dense = row_operations(module, x, output)
        sums.add(x, effective=effective.sum(), dense=dense * x.shape[0])

    def _neuron(self, name: str, spikes: Tensor) -> None:
        total, count = self.spikes.get(name, (torch.zeros((), dtype=torch.float64), 0))
        self.spikes[name] = total + spikes.sum(dtype=torch.float64).cpu(), count + spikes.numel()

    def result(self, model: SpikingNetwork) -> Operations:
        images = self.images
        layers = [sums.layer(name, images) for name, sums in self.layers.items()]
        neurons_an_image = sum(count for _, count in self.spikes.values()) / images / self.num_steps
        return Operations(
            num_steps=self.num_steps,
            images=images,
            layers=layers,
            firing_rate={name: float(total) / count for name, (total, count) in self.spikes.items()},
            parameter_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
            buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
            state_bytes=round(4 * neurons_an_image),
            dense_of_ann=sum(sums.of_ann(self.batches) for sums in self.layers.values()),
            not_counted=self.not_counted,
        )


class _Sums:
    """Of one layer over all batches."""

    def __init__(self) -> None:
        self.dense = self.macs = self.acs = self.active = 0.0
        self.inputs = self.rows = self.calls = 0
        self.spiking = True

    def add(self, x: Tensor, *, effective: Tensor, dense: float) -> None:
        active = x != 0
        binary = bool((active == x).all())
        self.calls += 1
        self.rows += x.shape[0]
        self.inputs += x.numel()
        self.active += float(active.sum())
        self.dense += float(dense)
        self.acs += float(effective) if binary else 0.0
        self.macs += 0.0 if binary else float(effective)
        self.spiking &= binary

    def layer(self, name: str, images: int) -> LayerOperations:
        return LayerOperations(
            name=name,
            spiking_input=self.spiking,
            input_rate=self.active / self.inputs,
            dense=self.dense / images,
            macs=self.macs / images,
            acs=self.acs / images,
        )

    def of_ann(self, batches: int) -> float:
        """Dense operations of an image if every call were of one step."""
        return self.dense / self.rows * self.calls / batches


def row_operations(layer: nn.Module, x: Tensor, output: Tensor) -> tuple[Tensor, float]:
    """Operations of a `Conv2d` or `Linear` on inputs that are not zero, by row `[rows]`, and a row's on all."""
    if isinstance(layer, nn.Conv2d):
        by_pixel = (x != 0).unflatten(1, (layer.groups, -1)).sum(2).sum(1)  # [rows, H, W], of all channels
        reach, fan_out = _reach(layer, x.shape[2:], output.shape[2:]), layer.out_channels // layer.groups
        return (by_pixel * reach).sum((1, 2)) * fan_out, float(reach.sum()) * x.shape[1] * fan_out
    assert isinstance(layer, nn.Linear)
    inputs = x.flatten(1)  # of positions too, each of which is a map of its own
    return (inputs != 0).sum(1) * layer.out_features, float(inputs.shape[1] * layer.out_features)


def _reach(conv: nn.Conv2d, size: torch.Size, output_size: torch.Size) -> Tensor:
    """How many windows each pixel of the input is in, `[H, W]`."""
    ones = torch.ones(1, 1, *output_size, device=conv.weight.device, dtype=torch.float64)
    kernel = torch.ones(1, 1, *conv.kernel_size, device=conv.weight.device, dtype=torch.float64)
    spread = F.conv_transpose2d(ones, kernel, stride=conv.stride, dilation=conv.dilation)[0, 0]
    padding = _padding(conv)
    height, width = size
    room = F.pad(spread, (0, max(0, width + 2 * padding[1]), 0, max(0, height + 2 * padding[0])))
    return room[padding[0] : padding[0] + height, padding[1] : padding[1] + width]


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Before the first pixel."""
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding == "same":
        both = [d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return (both[0], both[1])
    assert not isinstance(conv.padding, str)
    return (conv.padding[0], conv.padding[1])


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"
