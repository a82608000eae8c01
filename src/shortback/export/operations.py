r"""Count the operations of an inference, and estimate the energy of its arithmetic.

A layer whose inputs are zeros and ones accumulates (AC) one weight for every spike and every output that spike reaches;
any other layer multiplies and accumulates (MAC). Both are counted exactly: a spike at the edge reaches fewer outputs
than one in the middle, and with a stride most spikes reach fewer outputs than the kernel has weights, so the usual
product of spikes and fan-out is too high.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from shortback.copies import shared_copy
from shortback.errors import UserError
from shortback.export.accepted import described
from shortback.export.any_network import count_any, dense_of_ann, input_of_batch
from shortback.export.counting import Count
from shortback.export.functions import products_in_functions
from shortback.inspection.trunk import Branched
from shortback.neurons import SpikingNeuron
from shortback.spiking import SpikingNetwork
from shortback.spiking.static_input import is_foreign

MAC_PJ, AC_PJ = 4.6, 0.9
"""Energy of a 32-bit floating-point multiply-accumulate and of an accumulate in 45 nm (Horowitz, ISSCC 2014), in pJ."""


@dataclass
class LayerOperations:
    """Mean operations per image of one layer with weights, over all steps together.

    Attributes:
        name: name within the network.
        spiking_input: whether its inputs were zeros and ones in all batches.
        input_rate: fraction of its inputs that are not zero.
        dense: operations if no input were zero.
        macs: multiply-accumulates, on nonzero inputs that are not spikes.
        acs: accumulates, on spikes.
    """

    name: str
    spiking_input: bool = True
    input_rate: float = 0.0
    dense: float = 0.0
    macs: float = 0.0
    acs: float = 0.0


@dataclass
class Operations:
    """The mean cost of an image.

    Attributes:
        num_steps: `T`.
        images: number of images counted.
        layers: the layers with weights, in the order of their first calls.
        firing_rate: spikes per neuron and step, by name of the layer of neurons.
        parameter_bytes: size of the parameters of the network, norms included.
        buffer_bytes: size of the buffers of the network, such as the statistics of norms.
        state_bytes: size of the membranes for one image, in float32.
        dense_of_ann: multiply-accumulates of the same network as an ANN, in which every layer runs once.
        not_counted: modules with weights that are neither convolutions nor `Linear`, and functions that multiply, such
            as in attention. Norms are not listed: they are assumed folded, at no cost.
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
        """Energy of the arithmetic alone, without data movement, in uJ per image."""
        return (MAC_PJ * self.macs + AC_PJ * self.acs) * 1e-6

    @property
    def arithmetic_uj_of_ann(self) -> float:
        """Energy of the arithmetic of the network as a dense ANN, in uJ per image."""
        return MAC_PJ * self.dense_of_ann * 1e-6

    @property
    def break_even_rate(self) -> float:
        """The input rate below which all steps of a spiking layer take less arithmetic energy than one ANN layer.

        With data movement included it is much lower: 5.7 % at T=5 according to arXiv 2409.08290.
        """
        return min(1.0, MAC_PJ / (AC_PJ * self.num_steps))

    def to_dict(self) -> dict[str, Any]:
        names = ("dense", "macs", "acs", "arithmetic_uj", "arithmetic_uj_of_ann", "break_even_rate")
        return asdict(self) | {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Operations:
        """Rebuild the operations from what `to_dict` returned."""
        known: dict[str, Any] = {each.name: content[each.name] for each in fields(cls)}
        known["layers"] = [LayerOperations(**layer) for layer in known["layers"]]
        return cls(**known)

    def _when_it_pays(self) -> str:
        """A sentence on when spiking pays: with few steps arithmetic always does, and data movement alone decides."""
        below = f"below a rate of {self.break_even_rate:.1%}" if self.break_even_rate < 1 else "at any rate"
        return (
            f"By this count, spiking saves energy in a layer {below} at T={self.num_steps}; with data movement, only "
            "at far lower rates (5.7 % at T=5, arXiv 2409.08290)"
        )

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
            f"{self.arithmetic_uj_of_ann:.3g} uJ. {self._when_it_pays()}"
        )
        lines.append(
            f"parameters {self.parameter_bytes / 1e6:.3g} MB, buffers {self.buffer_bytes / 1e6:.3g} MB, "
            f"membranes {self.state_bytes / 1e6:.3g} MB an image"
        )
        if self.not_counted:
            lines.append(f"not counted: {', '.join(self.not_counted)}")
        return "\n".join(lines)


def count_operations(
    model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, Any]], *, num_steps: int | None = None
) -> Operations:
    """Count the operations of a network, averaged over images.

    The layers before the first neurons of a `SpikingNetwork` run once for a static image, and are counted once. In any
    other network with spiking neurons, layers are counted as often as the forward pass calls them; its neurons, samples
    and steps are found by running it on the first batch, and its state is reset before each batch.

    Args:
        model: a network without branches; it is run in `eval()`, and left as it was.
        batches: images `[N, C, H, W]`, sequences `[T, N, C, H, W]` or whatever else the network takes, or tuples whose
            first element is one of these.
        num_steps: `T` of a network that is no `SpikingNetwork`, if its neurons do not tell; batches are then pairs
            `(x, y)` with an entry of `y` for each sample.

    Raises:
        ValueError: the network has branches, there is no image, no neuron fires, or the samples or steps cannot be
            found.
    """
    if isinstance(batches, Tensor):
        raise UserError("count_operations() takes several batches, and a tensor is one: pass [x]")
    if isinstance(model, Branched):
        raise UserError(
            f"count_operations() takes a network without branches, and this is {described(model)}: give net.model"
        )
    if not isinstance(model, SpikingNetwork):
        count, steps = count_any(model, batches, num_steps=num_steps)
        return _result(count, model, num_steps=steps, dense_of_ann=dense_of_ann(count, steps))
    if num_steps not in (None, model.num_steps):
        raise UserError(
            f"count_operations(): num_steps={num_steps}: this network has its own, model.num_steps; set that instead"
        )
    count, of_ann = _of_spiking_network(model, batches)
    return _result(count, model, num_steps=model.num_steps, dense_of_ann=of_ann)


@torch.no_grad()
def _of_spiking_network(model: SpikingNetwork, batches: Iterable[Tensor | tuple[Tensor, Any]]) -> tuple[Count, float]:
    """Count what the network does, and its dense operations as an ANN, an image."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    copied = shared_copy(model).eval()
    assert isinstance(copied, SpikingNetwork)
    count = Count(copied.network)
    for name, module in copied.network.named_modules():
        if isinstance(module, SpikingNeuron):
            module.on_spikes = functools.partial(count.note_spikes, name)
    of_ann = None
    for batch in batches:
        x = input_of_batch(batch).to(device)
        if not x.numel():
            continue
        if not count.batches:
            one = x[:, :1] if x.ndim == 5 else x[:1]
            count.not_counted += products_in_functions(shared_copy(model).eval(), one)
            of_ann = _dense_in_one_step(model, one[0] if x.ndim == 5 else one)
        copied(x)
        count.images += x.shape[x.ndim - 4]
        count.batches += 1
    if not count.images:
        raise UserError("count_operations(): there is no image in the batches")
    return count, dense_of_ann(count, model.num_steps) if of_ann is None else of_ann


def _dense_in_one_step(model: SpikingNetwork, image: Tensor) -> float | None:
    """Dense operations on an image `[1, C, H, W]` in one step; None where a module has a number of steps of its own."""
    copied = shared_copy(model).eval()
    assert isinstance(copied, SpikingNetwork)
    if any(map(is_foreign, copied.network.modules())):
        return None
    copied.num_steps = 1
    count = Count(copied.network)
    copied(image)
    return sum(sums.dense for sums in count.layers.values())


def _result(count: Count, model: nn.Module, *, num_steps: int, dense_of_ann: float) -> Operations:
    images = count.images
    layers = [
        LayerOperations(
            name=name,
            spiking_input=sums.spiking,
            input_rate=sums.active / sums.inputs,
            dense=sums.dense / images,
            macs=sums.macs / images,
            acs=sums.acs / images,
        )
        for name, sums in count.layers.items()
    ]
    neurons_an_image = sum(sums.count for sums in count.neurons.values()) / images / num_steps
    return Operations(
        num_steps=num_steps,
        images=images,
        layers=layers,
        firing_rate={name: s.fired / s.count for name, s in count.neurons.items() if name not in count.graded},
        parameter_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
        state_bytes=round(4 * neurons_an_image),
        dense_of_ann=dense_of_ann,
        not_counted=count.not_counted,
    )


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"
