"""Which modules a forward pass calls, and which of them fire: neurons of any origin, recognised by their outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """The modules that a forward pass called, and what they do.

    Attributes:
        counts: number of calls by module, in the order in which the modules first returned.
        neurons: neurons of this package and of known libraries, and modules without a layer with weights that turn
            other values into zeros and ones. They may hold a norm or a surrogate. If one module of a class fires, all
            modules of that class are neurons.
        firing_layers: modules that hold weights and fire themselves, without a neuron module inside. None runs a
            `forward` of PyTorch, which may return ones alone, as a gate that starts with weights 0 and bias 1 does.
        before_neurons: the layers with weights (convolutions, norms) called last before each neuron, in order.
        spikes_at: for modules that return several tensors, the index of the spikes; for a dict, their key. Neurons that
            never fired have it from others of their class.
        silent: modules without a layer that returned only zeros for other values, like neurons that never fire. No
            module of their class returned anything but zeros and ones, and none has parameters that are all 0.
        spikes_inside: whether a layer received spikes, even if plain code in a `forward` made them.
        has_silent_output: whether the network ends in a neuron and its output was 0 for the whole sample, with batch
            norm on its running averages and on the batch.
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
        """Run a network in `eval()` on a sample and on a stronger input, and leave it as it was.

        Fresh batch norms keep deep neurons from firing, so each input is also run on the statistics of the batch.
        """
        calls, seen, order, are_zero = cls(), _Seen(), (), list[bool]()
        with undisturbed(model, sample), torch.no_grad():
            model.eval()
            for index, (x, norms_train) in enumerate(probes(sample)):
                set_norms(model, training=norms_train)
                reset_states(model)
                try:
                    modules = [(module, seen.note) for name, module in whole_modules(model) if name]
                    with hooked(modules, with_kwargs=True):
                        output = model(x.clone())
                    if index < 2:  # for the sample itself
                        are_zero.append(_is_zero(output))
                except Exception:  # the network's own code may not accept another input or mode
                    if not index:
                        raise
                if not index:
                    order = tuple(seen.order)
        calls.counts = Counter(order)
        calls._find_firing(model, seen)
        calls._find_before_neurons(order)
        last_layer = max((i for i, m in enumerate(order) if num_features(m) is not None), default=len(order))
        calls.has_silent_output = all(are_zero) and any(m in calls.neurons for m in order[last_layer:])
        calls.spikes_at = {m: place for m in seen.outputs if (place := seen.spikes_at(m)) is not None}
        by_class = {type(module): place for module, place in calls.spikes_at.items()}
        silent = [m for m in seen.outputs if m in calls.neurons and m not in calls.spikes_at and type(m) in by_class]
        calls.spikes_at |= {m: by_class[type(m)] for m in silent if seen.returns_several(m)}
        return calls

    def _find_firing(self, model: nn.Module, seen: _Seen) -> None:
        modules = [module for _, module in whole_modules(model)]
        known = {module for module in modules if is_known_neuron(module)}
        fire = [m for m in seen.outputs if m not in known and not _is_container(m) and seen.makes_spikes(m)]
        self.neurons = known | _outermost([m for m in fire if not holds_layer(m) and not known & {*m.modules()}])
        classes = _classes(self.neurons - known)
        self.neurons |= {m for m in modules if type(m) in classes and not holds_layer(m)}
        own = [m for m in fire if holds_layer(m) and not is_of_torch(m.forward)]
        layers = {m for m in own if not self.neurons & {*m.modules()}}
        layers = {m for m in layers if not layers & {part for part in m.modules() if part is not m}}
        zeros = [m for m in seen.outputs if not holds_layer(m) and not _is_container(m) and seen.makes_zeros(m)]
        others = {type(m) for m in seen.outputs if seen.returns_numbers(m)}
        zeros = [m for m in zeros if type(m) not in others and not known & {*m.modules()} and not _is_gated(m)]
        self.silent = [m for m in zeros if m in _outermost(zeros)]
        self.spikes_inside = any(num_features(m) is not None for m in seen.given_spikes - seen.given)
        classes = _classes(layers)
        self.firing_layers = layers | {m for m in modules if type(m) in classes}

    def _find_before_neurons(self, order: Sequence[nn.Module]) -> None:
        last: nn.Module | None = None
        for module in order:
            if module in self.neurons and last is not None and last not in self.before_neurons:
                self.before_neurons.append(last)
            if num_features(module) is not None:
                last = module


def is_known_neuron(module: nn.Module) -> bool:
    """Whether a module is a neuron of this package or of a known library."""
    return isinstance(module, SpikingNeuron) or is_library_neuron(module)


def holds_layer(module: nn.Module) -> bool:
    """Whether a module is or holds a layer: a convolution, a linear map, or weights with two axes longer than 1."""
    layers = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase)
    return any(isinstance(m, layers) for m in module.modules()) or any(
        p.ndim >= 2 and p.numel() > max(p.shape) for p in module.parameters()
    )


class _Seen:
    """What modules received and returned during some forward passes.

    Attributes:
        order: the module of each call, in the order in which the calls returned.
        outputs: by module, and by the index or key of each returned float tensor `[N, ...]` (0 for a single one):
            whether there was a one, and whether there were only zeros and ones.
        given: modules that received values other than zeros and ones.
        given_spikes: modules that received zeros and ones, and nothing else, in some call.
    """

    def __init__(self) -> None:
        self.order: list[nn.Module] = []
        self.outputs: dict[nn.Module, dict[int | str, tuple[bool, bool]]] = {}
        self.given: set[nn.Module] = set()
        self.given_spikes: set[nn.Module] = set()
        self._several: set[nn.Module] = set()

    def note(self, module: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any], output: Any) -> None:
        self.order.append(module)
        x = next((value for value in (*inputs, *by_keyword.values()) if isinstance(value, Tensor)), None)
        if x is not None and not _is_binary(x):
            self.given.add(module)
        elif x is not None and x.is_floating_point() and x.any() and not x.all():
            self.given_spikes.add(module)
        by_place = self.outputs.setdefault(module, {})
        tensors = list(_tensors(output))
        if len(tensors) > 1 or isinstance(output, Mapping):
            self._several.add(module)
        for place, tensor in tensors:
            has_one, binary = by_place.get(place, (False, True))
            by_place[place] = has_one or bool((tensor == 1).any()), binary and _is_binary(tensor)

    def makes_spikes(self, module: nn.Module) -> bool:
        """Whether it returned zeros and ones, not zeros alone, for other values or by its own weights."""
        fires = any(has_one and binary for has_one, binary in self.outputs[module].values())
        return fires and (module in self.given or holds_layer(module))

    def returns_numbers(self, module: nn.Module) -> bool:
        """Whether it returned numbers other than zeros and ones."""
        return any(not binary for _, binary in self.outputs[module].values())

    def makes_zeros(self, module: nn.Module) -> bool:
        """Whether it returned only zeros, although some inputs were not binary."""
        made = self.outputs[module].values()
        return bool(made) and module in self.given and all(binary and not has_one for has_one, binary in made)

    def returns_several(self, module: nn.Module) -> bool:
        """Whether it returned several tensors, or a dict."""
        return module in self._several

    def spikes_at(self, module: nn.Module) -> int | str | None:
        """The index or key of the spikes among several returned tensors; None if there are none, or one tensor."""
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
    """Whether a network's output is 0 for all samples; False for an invalid output."""
    try:
        return not stacked(output).any()
    except UserError:
        return False


def _is_binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _classes(modules: Iterable[nn.Module]) -> set[type[nn.Module]]:
    """The classes of modules, without those whose `forward` is PyTorch's."""
    return {type(module) for module in modules if not is_of_torch(type(module).forward)}


def is_of_torch(forward: Callable[..., Any]) -> bool:
    """Whether a `forward` is PyTorch's. A class says less: PyTorch makes one for each module that it parametrizes."""
    return (getattr(forward, "__module__", None) or "").startswith("torch.")


def _is_gated(module: nn.Module) -> bool:
    """Whether a parameter that is all 0 explains that a module returns zeros."""
    return any(p.numel() and not p.any() for p in module.parameters())


def _is_container(module: nn.Module) -> bool:
    """Whether a module only calls its parts; a subclass with its own `forward` may have neurons in plain code."""
    return isinstance(module, nn.ModuleList) or type(module).forward is nn.Sequential.forward


def _outermost(modules: list[nn.Module]) -> set[nn.Module]:
    inside = {part for module in modules for part in module.modules() if part is not module}
    return {module for module in modules if module not in inside}
