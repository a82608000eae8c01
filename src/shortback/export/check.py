"""Check that an export does what the network does: the same spikes and the same outputs at every step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shortback.copies import shared_copy
from shortback.errors import UserError
from shortback.export.arguments import input_of
from shortback.neurons import SpikingNeuron
from shortback.ops.reference import membranes
from shortback.spiking import SpikingNetwork

TOLERANCE = 1e-5
"""How close to the threshold a membrane must be for its spike to be allowed to differ. Folding weights and summing in
another order change the rounding, which moves a current by some 1e-7 of itself; a wrong neuron is off by more."""


OUTPUT_TOLERANCE = 1e-4
"""How much the outputs of equal spikes may differ, relative to the largest output: float32 sums in another order."""


@dataclass(frozen=True)
class Recording:
    """The outputs and spikes of one forward pass.

    Attributes:
        outputs: outputs of every step, `[T, N, K]`.
        spikes: spikes `[T, N, ...]` by neuron call, such as `layer1.0.relu` and `layer1.0.relu:2`, in call order.
    """

    outputs: Tensor
    spikes: Mapping[str, Tensor]

    def cpu(self) -> Recording:
        return Recording(self.outputs.cpu(), {name: spikes.cpu() for name, spikes in self.spikes.items()})


@dataclass(frozen=True)
class Check:
    """How an exported network differs from the original.

    A spike that differs changes everything after it, so each image is judged at the first step and layer where it
    differs.

    Attributes:
        executor: the software that ran the file.
        images: number of samples compared.
        spikes: number of values compared: neurons times steps times samples.
        flipped: number of these that differ.
        images_flipped: number of samples in which any spike differs.
        silent: neuron calls in which nothing fired, about which the check says little.
        first_layer: of the neuron calls in which images first differ, the one whose membrane was furthest from the
            threshold there; None if no spike differs.
        margin: the distance of that membrane from the threshold; None if no spike differs.
        difference_by_step: the largest difference between outputs at each step.
        unexplained: the largest difference between outputs of images whose spikes are all equal, relative to the
            largest output.
        agreement: fraction of samples whose largest logit is the same.
    """

    executor: str
    images: int
    spikes: int
    flipped: int
    images_flipped: int
    silent: tuple[str, ...]
    first_layer: str | None
    margin: float | None
    difference_by_step: tuple[float, ...]
    unexplained: float
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        steps = " ".join(f"{value:.1e}" for value in self.difference_by_step)
        first, silent = "", ""
        if self.first_layer is not None:
            first = (
                f", in {self.images_flipped} images; where they first differ, the membrane was at most "
                f"{self.margin:.1e} from the threshold (in {self.first_layer})"
            )
        if self.silent:
            silent = (
                f"; nothing fired in {len(self.silent)} layers, such as {self.silent[0]}, about which this says little"
            )
        return (
            f"{self.executor} on {self.images} images: {self.flipped} of {self.spikes} spikes differ{first}; outputs "
            f"differ at each step by at most {steps}; the class is the same for {self.agreement:.2%}{silent}"
        )

    def require(self, *, tolerance: float = TOLERANCE) -> None:
        """Raise unless the spikes differ by rounding alone.

        Raises:
            ValueError: a spike differs although its membrane was further than `tolerance` from the threshold; the
                message names the layer. Or equal spikes gave different outputs, as a readout without its bias would.
        """
        if not self.unexplained <= OUTPUT_TOLERANCE:
            raise UserError(
                f"the export is not written: the same spikes gave outputs that differ by {self.unexplained:.1e} of "
                f"the largest: {self}"
            )
        if self.margin is not None and not self.margin <= tolerance:
            raise UserError(f"the export is not written: {self.first_layer} does not fire as it did: {self}")


@torch.no_grad()
def record(model: SpikingNetwork, x: Tensor) -> Recording:
    """Run a copy of a network in `eval()`, and record its outputs and all spikes."""
    copied = shared_copy(model).eval()
    assert isinstance(copied, SpikingNetwork)
    copied.readout = "steps"
    with recorded(copied) as spikes:
        outputs = copied(x)
    return Recording(outputs, {name: value.unflatten(0, (model.num_steps, -1)) for name, value in spikes.items()})


@contextmanager
def recorded(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within the block, every run of the network adds the spikes `[T*N, ...]` of its neuron calls to the dict."""
    spikes: dict[str, Tensor] = {}
    neurons = {name: module for name, module in network.named_modules() if isinstance(module, SpikingNeuron)}

    def note(name: str, value: Tensor) -> None:
        calls = 1 + sum(key.partition(":")[0] == name for key in spikes)
        spikes[name if calls == 1 else f"{name}:{calls}"] = value

    before = {neuron: neuron.on_spikes for neuron in neurons.values()}
    for name, neuron in neurons.items():
        neuron.on_spikes = functools.partial(note, name.removeprefix("network."))
    try:
        yield spikes
    finally:
        for neuron, watcher in before.items():
            neuron.on_spikes = watcher


def compare(model: SpikingNetwork, x: Tensor, theirs: Recording, *, executor: str) -> Check:
    """Compare what an executor recorded with what the network does.

    Args:
        x: the sample that was given to the executor.
        theirs: the executor's recording, with spikes for every neuron call.
        executor: name of the executor, for the result.
    """
    ours, theirs = record(model, x).cpu(), theirs.cpu()  # an executor may have run on another device than the network
    if not ours.spikes:
        raise UserError("the network runs no neuron of shortback, so there are no spikes to compare")
    flipped = {name: spikes != theirs.spikes[name].to(spikes.dtype) for name, spikes in ours.spikes.items()}
    margins = _margins(model, x, flipped)
    first = max(margins, key=lambda name: margins[name], default=None)
    logits, other = ours.outputs.mean(0), theirs.outputs.mean(0)
    images_flipped = torch.stack([w.flatten(2).any(2).any(0) for w in flipped.values()]).any(0)
    differences = (ours.outputs - theirs.outputs).abs()
    same = differences[:, ~images_flipped]
    scale = float(ours.outputs.abs().max().clamp_min(torch.finfo(ours.outputs.dtype).tiny))
    return Check(
        executor=executor,
        images=logits.shape[0],
        spikes=sum(where.numel() for where in flipped.values()),
        flipped=sum(int(where.sum()) for where in flipped.values()),
        images_flipped=int(images_flipped.sum()),
        silent=tuple(name for name, spikes in ours.spikes.items() if not spikes.any()),
        first_layer=first,
        margin=None if first is None else margins[first],
        difference_by_step=tuple(differences.flatten(1).amax(1).tolist()),
        unexplained=float(same.max()) / scale if same.numel() else 0.0,
        agreement=float((logits.argmax(1) == other.argmax(1)).float().mean()),
    )


def _margins(model: SpikingNetwork, x: Tensor, flipped: Mapping[str, Tensor]) -> dict[str, float]:
    """By neuron call in which images first differ: the largest distance of such a membrane from the threshold."""
    differs = torch.stack([where.flatten(2).any(2) for where in flipped.values()])  # [calls, T, N]
    first_step = differs.any(0).int().argmax(0)  # [N]
    at_first = differs[:, first_step, torch.arange(differs.shape[2])]  # [calls, N]
    first_call = at_first.int().argmax(0)
    margins = {}
    for index, (name, where) in enumerate(flipped.items()):
        images = ((first_call == index) & at_first.any(0)).nonzero().flatten().tolist()
        if images:
            distance = _distances(model, x, name).cpu()
            margins[name] = max(
                float(distance[int(first_step[n]), n][where[int(first_step[n]), n]].max()) for n in images
            )
    return margins


@torch.no_grad()
def _distances(model: SpikingNetwork, x: Tensor, call: str) -> Tensor:
    """Distances of the membranes of a neuron call from the threshold, `[T, N, ...]`."""
    copied = shared_copy(model).eval()
    assert isinstance(copied, SpikingNetwork)
    name, _, number = call.partition(":")
    neuron = copied.network.get_submodule(name)
    assert isinstance(neuron, SpikingNeuron)
    inputs: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(input_of(module, args, kwargs))

    neuron.register_forward_pre_hook(keep, with_kwargs=True)
    copied(x)
    current = neuron.unfold(inputs[int(number or 1) - 1])
    run = membranes(current, dynamics=neuron.dynamics, decay=neuron.leak(), num_steps=model.num_steps)
    return (torch.stack(list(run)) - neuron.dynamics.threshold).abs()
