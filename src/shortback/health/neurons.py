"""Which neurons of a network are to be watched, and how time runs through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from shortback.choices import Layout
from shortback.health.carry import axes_of_time
from shortback.inspection.calls import Calls, is_known_neuron
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

_WITHOUT_NEURONS = ("torch.", "torchvision.", "timm.", "shortback.")  # but for those of ours, which are known


class Watched(NamedTuple):
    """The neurons of a network by name, and of those that return several tensors which of them are the spikes."""

    neurons: dict[str, nn.Module]
    which: dict[str, int | str]


class Time(NamedTuple):
    """How time runs through a network.

    Attributes:
        layouts: through neurons that are not ours, by name, as far as it is found out.
        output: through what the network returns.
        unknown: neurons whose spikes have an axis of time, it seems, that is none of a layout.
    """

    layouts: dict[str, Layout]
    output: Layout
    unknown: frozenset[str] = frozenset()


def is_of_libraries(network: nn.Module) -> bool:
    """Whether every module is of a library whose modules are known: none fires but our neurons, and none remembers."""
    return all(type(module).__module__.startswith(_WITHOUT_NEURONS) for module in network.modules())


def neurons_of(trunk: nn.Module, model: nn.Module, x: Tensor) -> Watched:
    """The neurons by name: known ones, and where there are modules of anyone else, what is seen to fire.

    Not those that only integrate, as a readout: that they put out anything but zeros and ones is no fault of theirs.

    Args:
        trunk: what is measured; names are taken in it.
        model: what takes `x`: the trunk, or the `SpikingNetwork` around it.
        x: a batch.
    """
    known = {name: module for name, module in whole_modules(trunk) if is_known_neuron(module)}
    known = {name: module for name, module in known.items() if not is_integrator(module)}
    if is_of_libraries(trunk):
        return Watched(known, {})
    try:
        calls = Calls.of(model, x)
    except Exception:  # of the network's own code, which is about to run in training too, and may say it again there
        return Watched(known, {})
    firing = calls.firing
    found = {name: module for name, module in trunk.named_modules() if module in firing and not is_integrator(module)}
    return Watched(found, {name: calls.spikes_at[m] for name, m in found.items() if m in calls.spikes_at})


def time_of(net: nn.Module, trunk: nn.Module, watched: Watched, x: Tensor, *, num_samples: int) -> Time:
    """How time runs through neurons that are not ours, as far as it is to be found out, and through the output.

    Args:
        net: what is measured.
        trunk: without its branches, and without the wrapper that owns its time steps.
        watched: its neurons.
        x: a batch.
        num_samples: in it.

    Raises:
        ValueError: a network without branches returns `[N, T, K]` or `[N, K, T]`, and which is not to be told.
    """
    others = {name: module for name, module in watched.neurons.items() if not isinstance(module, TimeModule)}
    if isinstance(trunk_of(net), SpikingNetwork):
        return Time(dict.fromkeys(others, "folded"), "folded")
    has_branches = isinstance(net, Branched)  # which knows what its output is
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
            return Time({}, "folded")  # of a network that does something else in `eval()` than in training
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
    """What a network returned, and the first call of each of some modules."""

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
    except Exception:  # the network's own code, on an input it may not take, may raise anything
        return None


def _layout_of(
    neuron: nn.Module, call: _Call, found: Layout | None, which: int | str | None, output: Layout, num_samples: int
) -> Layout | Literal["unknown"] | None:
    """The layout that was found, but where the neuron takes all steps in what looks like one.

    That is a neuron of `[N, T, ...]` whose output the network averages over time itself, and one that several layers
    share, whose calls look like steps, or like nothing.
    """
    shape = call.shape
    looks_like_one = found == "folded" and shape[0] == num_samples
    if len(shape) < 3 or not (looks_like_one or found in (None, "steps")):
        return found
    try:
        axes = axes_of_time(neuron, call.inputs, which)
    except Exception:  # of a neuron that does not run by itself
        return "unknown" if looks_like_one else found
    last = len(shape) - 1
    by_axis: list[tuple[int, int, Layout]] = [(0, 1, "time_first"), (1, 0, "batch_first"), (last, 0, "time_last")]
    for axis, of_samples, layout in by_axis:
        if axes == [axis] and shape[of_samples] == num_samples:
            return layout
    if axes and looks_like_one:
        return "unknown"
    return "batch_first" if looks_like_one and output == "batch_first" else found
