"""Find the neurons of a network to watch, and how time runs through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from shortback.choices import Layout
from shortback.health.carry import axes_of_time
from shortback.inspection.calls import Calls, is_known_neuron, is_of_torch
from shortback.inspection.classes import StepsOrClassesError
from shortback.inspection.detect import Found, find_layouts
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import stacked, tensor_of
from shortback.inspection.libraries import is_integrator, whole_modules
from shortback.inspection.reset import reset_states
from shortback.inspection.trunk import Branched, trunk_of
from shortback.inspection.untouched import undisturbed
from shortback.neurons import TimeModule
from shortback.spiking import SpikingNetwork

_WITHOUT_NEURONS = ("torch.", "torchvision.", "timm.", "shortback.")  # no neurons here but Shortback's own, all known


class Watched(NamedTuple):
    """The neurons of a network by name, and which tensor is the spikes where one returns several."""

    neurons: dict[str, nn.Module]
    which: dict[str, int | str]


class Time(NamedTuple):
    """How time runs through a network.

    Attributes:
        layouts: the layouts of neurons of other libraries, by name, as far as they were found.
        output: the layout of the network's output.
        unknown: neurons whose spikes seem to have a time axis that fits no layout.
    """

    layouts: dict[str, Layout]
    output: Layout
    unknown: frozenset[str] = frozenset()


def is_of_libraries(network: nn.Module) -> bool:
    """Whether all modules are from libraries in which nothing but Shortback's neurons fires, and nothing remembers."""
    return all(type(module).__module__.startswith(_WITHOUT_NEURONS) for module in network.modules())


def neurons_of(trunk: nn.Module, model: nn.Module, x: Tensor, *, silent: bool = False) -> Watched:
    """Find the neurons: the known ones and, if the network has modules of other origin, those seen to fire.

    Neurons that only integrate, such as a readout, are left out: their outputs need not be zeros and ones.

    Args:
        trunk: the network to measure, in which the neurons are named.
        model: the network that takes `x`: the trunk, or the `SpikingNetwork` around it.
        x: a batch.
        silent: whether modules that returned only zeros count too, and all others of their classes, unless these are
            PyTorch's: they may be neurons that never fire.
    """
    known = {name: module for name, module in whole_modules(trunk) if is_known_neuron(module)}
    known = {name: module for name, module in known.items() if not is_integrator(module)}
    if is_of_libraries(trunk):
        return Watched(known, {})
    try:
        calls = Calls.of(model, x)
    except Exception:  # from the network's own code; the run in training that follows raises it again if it persists
        return Watched(known, {})
    classes = {type(module) for module in calls.silent if not is_of_torch(module.forward)} if silent else set()
    firing = calls.firing | {module for module in trunk.modules() if type(module) in classes}
    found = {name: module for name, module in trunk.named_modules() if module in firing and not is_integrator(module)}
    return Watched(found, {name: calls.spikes_at[m] for name, m in found.items() if m in calls.spikes_at})


def time_of(net: nn.Module, trunk: nn.Module, watched: Watched, x: Tensor, *, num_samples: int) -> Time:
    """Find how time runs through neurons of other libraries, as far as possible, and through the output.

    Args:
        net: the network to measure.
        trunk: the network without its branches and without the `SpikingNetwork` wrapper.
        watched: its neurons.
        x: a batch.
        num_samples: the number of samples in it.

    Raises:
        ValueError: a network without branches returns `[N, T, K]` or `[N, K, T]`, and it is unclear which.
    """
    others = {name: module for name, module in watched.neurons.items() if not isinstance(module, TimeModule)}
    if isinstance(trunk_of(net), SpikingNetwork):
        return Time(dict.fromkeys(others, "folded"), "folded")
    has_branches = isinstance(net, Branched)  # then attach() has found the layout of its output
    if not others and has_branches:
        return Time({}, "folded")
    with undisturbed(trunk, x), torch.no_grad():
        try:
            seen = _Seen.of(trunk, others, watched.which, x)
            if not others and stacked(seen.output).ndim == 2:
                return Time({}, "folded")
        except Exception:
            if others:
                raise
            return Time({}, "folded")  # the network may behave differently in `eval()` and fail only there
        found = _found(trunk, x, others, watched.which, num_steps=net.num_steps if has_branches else None)
        if isinstance(found, StepsOrClassesError) and not has_branches:
            raise found
        output = found.output if isinstance(found, Found) else "folded"
        layouts: dict[str, Layout] = {}
        unknown = set()
        for name, call in seen.first.items():
            before = found.modules.get(name) if isinstance(found, Found) else None
            layout = _layout_of(others[name], call, before, watched.which.get(name), output, num_samples)
            if layout == "unknown":
                unknown.add(name)
            elif layout is not None:
                layouts[name] = layout
    return Time(layouts, output, frozenset(unknown))


class _Call(NamedTuple):
    inputs: tuple[Any, ...]
    shape: torch.Size  # of the spikes


@dataclass
class _Seen:
    """What a network returned, and the first call of each watched module."""

    output: Any = None
    first: dict[str, _Call] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, modules: dict[str, nn.Module], which: dict[str, int | str], x: Tensor) -> _Seen:
        seen = cls()

        def noting(name: str):
            def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
                spikes = tensor_of(output, which.get(name))
                if spikes is not None:
                    seen.first.setdefault(name, _Call(inputs, spikes.shape))

            return note

        reset_states(model)
        with hooked((module, noting(name)) for name, module in modules.items()):
            seen.output = model.eval()(x.clone())
        return seen


def _found(
    model: nn.Module, x: Tensor, modules: dict[str, nn.Module], which: dict[str, int | str], *, num_steps: int | None
) -> Found | StepsOrClassesError | None:
    try:
        return find_layouts(model, x, modules, num_steps=num_steps, which=which)
    except StepsOrClassesError as error:
        return error
    except Exception:  # the network's own code may raise anything on an input it does not support
        return None


def _layout_of(
    neuron: nn.Module, call: _Call, found: Layout | None, which: int | str | None, output: Layout, num_samples: int
) -> Layout | Literal["unknown"] | None:
    """The layout that was found, corrected for a neuron that takes all steps at once although this looks like one step.

    This happens for a neuron of `[N, T, ...]` whose output the network itself averages over time, and for one shared by
    several layers, whose calls look like steps or fit no layout.
    """
    shape = call.shape
    looks_like_one = found == "folded" and shape[0] == num_samples
    if len(shape) < 3 or not (looks_like_one or found in (None, "steps")):
        return found
    try:
        axes = axes_of_time(neuron, call.inputs, which)
    except Exception:  # the neuron does not run on its own
        return "unknown" if looks_like_one else found
    last = len(shape) - 1
    by_axis: list[tuple[int, int, Layout]] = [(0, 1, "time_first"), (1, 0, "batch_first"), (last, 0, "time_last")]
    for axis, of_samples, layout in by_axis:
        if axes == [axis] and shape[of_samples] == num_samples:
            return layout
    if axes and looks_like_one:
        return "unknown"
    return "batch_first" if looks_like_one and output == "batch_first" else found
