"""What a forward calls, and what of that fires: neurons that anyone has written, known by what they return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import num_features, stacked
from shortback.inspection.libraries import is_library_neuron, whole_modules
from shortback.inspection.probes import probes, set_norms
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed
from shortback.neurons import SpikingNeuron


@dataclass
class Calls:
    """The modules that a forward called, and what they do.

    Attributes:
        counts: by module, how many times, in the order in which they first returned.
        neurons: turn something else into zeros and ones, and hold no layer with weights. They may hold a norm or a
            surrogate, and are neurons whether they fire or not: one of a class that fired elsewhere is one too.
        firing_layers: hold weights and fire by themselves, without a neuron that is a module.
        before_neurons: the layers with weights (convolutions, norms) called last before a neuron is, in order.
        spikes_at: of modules that return several tensors, the place of the spikes among them; of a dict their name.
        silent: hold no layer, and returned nothing but zeros of something else, as neurons that never fire.
        spikes_inside: whether a layer was given spikes, be it that a line of a `forward` made them.
        has_silent_output: whether the network ends in a neuron, and its output was 0 for the whole sample, with norms
            by their averages and by the batch.
    """

    counts: Counter[nn.Module] = field(default_factory=Counter)
    neurons: set[nn.Module] = field(default_factory=set)
    firing_layers: set[nn.Module] = field(default_factory=set)
    before_neurons: list[nn.Module] = field(default_factory=list)
    spikes_at: dict[nn.Module, int | str] = field(default_factory=dict)
    silent: list[nn.Module] = field(default_factory=list)
    spikes_inside: bool = False
    has_silent_output: bool = False

    @property
    def firing(self) -> set[nn.Module]:
        return self.neurons | self.firing_layers

    @classmethod
    def of(cls, model: nn.Module, sample: Tensor) -> Calls:
        """Run a network on a sample and a stronger input, in `eval()`; afterwards it is what it was.

        Fresh batch norms hold deep neurons back, so they are run on the statistics of the batch too.
        """
        calls, seen, order, are_zero = cls(), _Seen(), (), list[bool]()
        with undisturbed(model, sample), torch.no_grad():
            model.eval()
            for index, (x, norms_train) in enumerate(probes(sample)):
                set_norms(model, training=norms_train)
                reset_states(model)
                try:
                    with hooked((module, seen.note) for name, module in whole_modules(model) if name):
                        output = model(x.clone())
                    are_zero.append(index < 2 and _is_zero(output))  # of the sample itself
                except Exception:  # of the network's own code, on an input or in a mode that it may not take
                    if not index:
                        raise
                if not index:
                    order = tuple(seen.order)
        calls.counts = Counter(order)
        calls._find_firing(model, seen)
        calls._find_before_neurons(order)
        last_layer = max((i for i, m in enumerate(order) if num_features(m) is not None), default=len(order))
        calls.has_silent_output = all(are_zero[:2]) and any(m in calls.neurons for m in order[last_layer:])
        calls.spikes_at = {m: place for m in seen.outputs if (place := seen.spikes_at(m)) is not None}
        return calls

    def _find_firing(self, model: nn.Module, seen: _Seen) -> None:
        modules = [module for _, module in whole_modules(model)]
        known = {module for module in modules if is_known_neuron(module)}
        fire = [m for m in seen.outputs if m not in known and not _is_container(m) and seen.makes_spikes(m)]
        self.neurons = known | _outermost([m for m in fire if not holds_layer(m) and not known & {*m.modules()}])
        classes = {type(m) for m in self.neurons - known if not type(m).__module__.startswith("torch.")}
        self.neurons |= {m for m in modules if type(m) in classes and not holds_layer(m)}
        layers = {m for m in fire if holds_layer(m) and not self.neurons & {*m.modules()}}
        layers = {m for m in layers if not layers & {part for part in m.modules() if part is not m}}
        zeros = [m for m in seen.outputs if not holds_layer(m) and not _is_container(m) and seen.makes_zeros(m)]
        self.silent = [m for m in zeros if m in _outermost(zeros)]
        self.spikes_inside = any(num_features(m) is not None for m in seen.given_spikes - seen.given)
        self.firing_layers = layers | {m for m in modules if type(m) in {type(layer) for layer in layers}}

    def _find_before_neurons(self, order: Sequence[nn.Module]) -> None:
        last: nn.Module | None = None
        for module in order:
            if module in self.neurons and last is not None and last not in self.before_neurons:
                self.before_neurons.append(last)
            if num_features(module) is not None:
                last = module


def is_known_neuron(module: nn.Module) -> bool:
    """Whether it is a neuron of ours or of another library."""
    return isinstance(module, SpikingNeuron) or is_library_neuron(module)


def holds_layer(module: nn.Module) -> bool:
    """Whether it is, or holds, a layer: a convolution, a linear map, or weights that are more than one axis long."""
    layers = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase)
    return any(isinstance(m, layers) for m in module.modules()) or any(
        p.ndim >= 2 and p.numel() > max(p.shape) for p in module.parameters()
    )


class _Seen:
    """What modules were given and returned in some forwards.

    Attributes:
        order: of the calls.
        outputs: by module, of every tensor it returned, by its place or name (0 where it is only one): whether there
            was a one, and nothing but zeros and ones.
        given: modules that were given something else than zeros and ones.
        given_spikes: modules that were given zeros and ones, of these some.
    """

    def __init__(self) -> None:
        self.order: list[nn.Module] = []
        self.outputs: dict[nn.Module, dict[int | str, tuple[bool, bool]]] = {}
        self.given: set[nn.Module] = set()
        self.given_spikes: set[nn.Module] = set()
        self._several: set[nn.Module] = set()

    def note(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.order.append(module)
        x = next((value for value in inputs if isinstance(value, Tensor)), None)
        if x is not None and not _is_binary(x):
            self.given.add(module)
        elif x is not None and x.is_floating_point() and x.any():
            self.given_spikes.add(module)
        by_place = self.outputs.setdefault(module, {})
        tensors = list(_tensors(output))
        if len(tensors) > 1 or isinstance(output, Mapping):
            self._several.add(module)
        for place, tensor in tensors:
            has_one, binary = by_place.get(place, (False, True))
            by_place[place] = has_one or bool((tensor == 1).any()), binary and _is_binary(tensor)

    def makes_spikes(self, module: nn.Module) -> bool:
        """Whether it made zeros and ones, some ones among them, of something else (or by weights of its own)."""
        fires = any(has_one and binary for has_one, binary in self.outputs[module].values())
        return fires and (module in self.given or holds_layer(module))

    def makes_zeros(self, module: nn.Module) -> bool:
        """Whether it made nothing but zeros of something else."""
        made = self.outputs[module].values()
        return bool(made) and module in self.given and all(binary and not has_one for has_one, binary in made)

    def spikes_at(self, module: nn.Module) -> int | str | None:
        """Which of several tensors that it returned was of zeros and ones."""
        if module not in self._several:
            return None
        found = (place for place, (has_one, binary) in self.outputs[module].items() if has_one and binary)
        return next(found, None)


def _tensors(output: Any) -> Iterator[tuple[int | str, Tensor]]:
    several = output if isinstance(output, tuple | list) else (output,)
    for place, value in output.items() if isinstance(output, Mapping) else enumerate(several):
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2:
            yield place, value


def _is_zero(output: Any) -> bool:
    """Whether a network's output is 0 for all samples; what is no output is not."""
    try:
        return not stacked(output).any()
    except UserError:
        return False


def _is_binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _is_container(module: nn.Module) -> bool:
    """Whether it does no more than its parts: one of a derived class may have neurons that are lines of its own."""
    return isinstance(module, nn.ModuleList) or type(module).forward is nn.Sequential.forward


def _outermost(modules: list[nn.Module]) -> set[nn.Module]:
    inside = {part for module in modules for part in module.modules() if part is not module}
    return {module for module in modules if module not in inside}
