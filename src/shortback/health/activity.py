"""Observe neurons on a batch: how often they fire, where their membranes are, and the gradient that reaches them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shortback import ops
from shortback.choices import Layout
from shortback.health.layers import THE_NETWORK
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import by_step, tensor_of, why_not
from shortback.neurons import SpikingNeuron, TimeModule

WINDOW = 0.01  # a membrane is inside the window where the surrogate is above this share of its peak


@dataclass(frozen=True)
class NeuronActivity:
    """The activity of one layer of neurons on one batch.

    Attributes:
        name: the name of the module; where several layers share it, `relu (call 2)` is its use by the second one.
        kind: the class of the module.
        firing_rate: spikes per neuron and step.
        dead: share of the neurons (each element of `[C, H, W]` is one) that never fire on the batch; nan if some fire
            and it is not known which axis of the spikes is time.
        saturated: share of the neurons that fire at every step of every sample; nan where `dead` is.
        in_window: share of the membrane potentials, before firing, where the surrogate is above 1% of its peak; None
            for neurons of other libraries, whose membranes are not seen.
        not_binary: number of outputs that are neither 0 nor 1.
        gradient_by_step: norm of the gradient that reaches the spikes of each step; empty if the steps are not known
            or the spikes require no gradient.
    """

    name: str
    kind: str
    firing_rate: float
    dead: float
    saturated: float
    in_window: float | None
    not_binary: int
    gradient_by_step: list[float]


@dataclass
class _Counts:
    """Sums over the calls of one layer of neurons."""

    name: str
    kind: str
    fired: Tensor | None = None
    rows: int = 0
    inside: Tensor | None = None
    membranes: int = 0
    not_binary: int = 0
    squares: list[Tensor] = field(default_factory=list)
    has_steps: bool = True


class Observer:
    """Watches neurons: their activity in one forward, and the gradient that reaches them after a second one.

    Args:
        num_samples: `N` of the batch, from which the number of steps of a folded tensor follows.
        neurons: the neurons to watch, by name.
        layouts: how time runs through the neurons, by name; `"folded"` where a name is missing.
        which: by name, which of several returned tensors are the spikes; the first where a name is missing.
        unknown: names of neurons through which time runs in an unknown way.

    Attributes:
        records_gradients: set True to record the gradients of the backward passes that follow.
    """

    def __init__(
        self,
        num_samples: int,
        neurons: Mapping[str, nn.Module],
        layouts: Mapping[str, Layout] | None = None,
        *,
        which: Mapping[str, int | str] | None = None,
        unknown: Collection[str] = (),
    ) -> None:
        self.num_samples = num_samples
        self.neurons = neurons
        self.layouts = layouts or {}
        self.which = which or {}
        self.unknown = unknown
        self.records_gradients = False
        self._counts: dict[tuple[str, object], _Counts] = {}  # by name and layer, see _counts_of
        self._num_calls: Counter[str] = Counter()

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Record what the neurons do in a forward inside the block."""
        self._num_calls.clear()
        with ExitStack() as hooks:
            for name, module in self.neurons.items():
                hooks.enter_context(module.register_forward_hook(self._watch(name), with_kwargs=True))
            yield

    @contextmanager
    def observe_gradients(self) -> Iterator[None]:
        """Prepare a forward inside the block so that its backward passes are recorded while `records_gradients` is set.

        Neurons of this package get no hooks, so that their layers run as in training and keep as little in memory.
        """
        self._num_calls.clear()
        seen = {name for name, _ in self._counts}
        found = [(name, module) for name, module in self.neurons.items() if name in seen]
        ours = [(module, module.on_spikes) for _, module in found if isinstance(module, SpikingNeuron)]
        others = [(m, self._gradient_hook(name)) for name, m in found if not isinstance(m, SpikingNeuron)]
        with hooked(others):
            try:
                for name, module in found:
                    if isinstance(module, SpikingNeuron):
                        module.on_spikes = partial(self._watch_gradient, name, module)
                yield
            finally:
                for neuron, before in ours:
                    neuron.on_spikes = before

    def activities(self) -> list[NeuronActivity]:
        """The activity of every layer of neurons, in the order of their first calls.

        Calls made only with gradients, by a forward that checks `torch.is_grad_enabled()`, are left out.
        """
        return [_summary(counts) for counts in self._counts.values() if counts.fired is not None]

    def unseen(self) -> list[str]:
        """Neurons of this package whose forward was not called: unused, or run by `step()`, which runs no hooks."""
        seen = {name for name, _ in self._counts}
        return [name for name, module in self.neurons.items() if isinstance(module, SpikingNeuron) and name not in seen]

    def _watch(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any], output: Any) -> None:
            spikes = self._spikes(name, output)
            if spikes is None:
                return
            counts = self._counts_of(name, module, spikes)
            self._count(counts, name, spikes)
            if isinstance(module, SpikingNeuron):
                self._count_membranes(counts, module, next(iter((*inputs, *by_keyword.values()))))

        return hook

    def _spikes(self, name: str, output: Any) -> Tensor | None:
        """The returned tensor that may be spikes; None if there is none."""
        spikes = tensor_of(output, self.which.get(name))
        return spikes if spikes is not None and spikes.is_floating_point() and spikes.ndim >= 2 else None

    def _counts_of(self, name: str, module: nn.Module, spikes: Tensor) -> _Counts:
        """The counts of the layer of neurons that the current call of a module belongs to.

        If the module takes all steps at once, every call is a layer of its own. If it is called once a step, or that
        is not known, all calls of the same shape are one layer.
        """
        self._num_calls[name] += 1
        takes_all = isinstance(module, TimeModule) or self.layouts.get(name, "steps") != "steps"
        key = name, self._num_calls[name] if takes_all else spikes.shape
        if key not in self._counts:
            number = 1 + sum(other == name for other, _ in self._counts)
            label = name or THE_NETWORK
            label = label if number == 1 else f"{label} (call {number})"
            self._counts[key] = _Counts(label, type(module).__name__, has_steps=name not in self.unknown)
        return self._counts[key]

    def _gradient_hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            spikes = self._spikes(name, output)
            if spikes is not None:
                self._watch_gradient(name, module, spikes)

        return hook

    def _watch_gradient(self, name: str, module: nn.Module, spikes: Tensor) -> None:
        counts = self._counts_of(name, module, spikes)
        if not spikes.requires_grad:
            return
        steps = len(self._by_step(name, spikes))
        first = len(counts.squares)
        counts.squares += [torch.zeros((), device=spikes.device, dtype=torch.float64) for _ in range(steps)]

        def record(grad: Tensor) -> None:
            if self.records_gradients:
                dtype = torch.promote_types(grad.dtype, torch.float32)
                for step, part in enumerate(self._by_step(name, grad.detach())):
                    counts.squares[first + step] += torch.linalg.vector_norm(part, dtype=dtype).square()

        spikes.register_hook(record)

    @torch.no_grad()
    def _count(self, counts: _Counts, name: str, spikes: Tensor) -> None:
        fired = self._by_step(name, spikes != 0)
        counts.not_binary += int((spikes != 0).logical_and(spikes != 1).sum())
        by_neuron = fired.sum((0, 1))
        counts.fired = by_neuron if counts.fired is None else counts.fired + by_neuron
        counts.rows += fired.shape[0] * fired.shape[1]

    def _by_step(self, name: str, spikes: Tensor) -> Tensor:
        """A view `[T, N, ...]` of the spikes; a single step with everything if they do not have the layout."""
        layout = self.layouts.get(name, "folded")
        fits = why_not(spikes, layout, self.num_samples) is None
        return by_step(spikes, self.num_samples, layout) if fits else spikes.unsqueeze(0)

    @torch.no_grad()
    def _count_membranes(self, counts: _Counts, neuron: SpikingNeuron, current: Tensor) -> None:
        dynamics = neuron.dynamics
        sequence = neuron.unfold(current.detach())
        threshold, surrogate = dynamics.threshold, dynamics.surrogate
        for u in ops.membranes(sequence, dynamics=dynamics, decay=neuron.leak(), num_steps=neuron.num_steps):
            inside = (surrogate.gradient(u - threshold) > WINDOW * surrogate.peak).sum()
            counts.inside = inside if counts.inside is None else counts.inside + inside
            counts.membranes += u.numel()


def _summary(counts: _Counts) -> NeuronActivity:
    assert counts.fired is not None
    fired, known = counts.fired.double(), counts.has_steps or not counts.fired.any()
    return NeuronActivity(
        name=counts.name,
        kind=counts.kind,
        firing_rate=(fired.mean() / counts.rows).item(),
        dead=(fired == 0).double().mean().item() if known else math.nan,
        saturated=(fired == counts.rows).double().mean().item() if known else math.nan,
        in_window=None if counts.inside is None else counts.inside.item() / counts.membranes,
        not_binary=counts.not_binary,
        gradient_by_step=[square.sqrt().item() for square in counts.squares] if counts.has_steps else [],
    )
