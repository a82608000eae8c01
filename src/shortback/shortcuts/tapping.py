"""Attach branches at known places: dry runs find the shapes there, and hooks feed the heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from shortback.choices import Layout, Reduction
from shortback.errors import UserError
from shortback.inspection.backends import with_backend
from shortback.inspection.calls import Calls
from shortback.inspection.detect import Found, find_layouts
from shortback.inspection.features import Place, find_feature_axes
from shortback.inspection.hooks import hooked
from shortback.inspection.layer_calls import LayerCalls
from shortback.inspection.layout import (
    LAYOUTS,
    average_over_space,
    average_over_time,
    axes_of_features,
    first_tensor,
    leading_axes,
    logits_of,
    tensor_of,
    warn_of_steps_in_a_tuple,
    why_not,
)
from shortback.inspection.pointwise import patch_strided_1x1
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed
from shortback.losses import mean_over_time
from shortback.neurons import SpikingNeuron
from shortback.shortcuts.heads import HeadFactory, linear_head
from shortback.shortcuts.network import ShortcutNetwork, Tap
from shortback.spiking import SpikingNetwork
from shortback.torch_private import version_of


def tap(
    model: nn.Module,
    places: dict[str, nn.Module],
    *,
    sample: Tensor,
    head: HeadFactory = linear_head,
    layout: Layout | Literal["auto"] = "auto",
    reduce: Reduction | None = None,
    num_steps: int | None = None,
    features: int | None = None,
    output: int | str | None = None,
    run: Callable[[], Calls] | None = None,
) -> ShortcutNetwork:
    """Attach branches at the modules of `places`, by name; for other arguments see `shortback.attach`.

    Args:
        run: runs the network, to find which of several returned tensors are the spikes.

    Raises:
        ValueError: a module is not called once (or once a step) or does not return a tensor of the layout; the layout
            cannot be found.
    """
    which: dict[str, int | str | None] = dict.fromkeys(places, output)
    if output is None and not isinstance(model, SpikingNetwork):
        calls = Calls.of(model, sample) if run is None else run()
        which = {place: calls.spikes_at.get(module) for place, module in places.items()}
    time = _time_of(model, places, sample, layout, num_steps, which)
    seen, num_classes = _dry_run(model, places, sample, time, reduce, num_steps, which)
    axes = _feature_axes(model, sample, seen, features)
    parameter = next(model.parameters(), sample)
    with torch.random.fork_rng(devices=[]):  # a run with branches draws the same random numbers as one without
        dtype = torch.promote_types(parameter.dtype, torch.float32)  # the dtype of the averages
        widths = [seen[place].tensor.shape[axes[place]] for place in places]
        heads = [_made_by(head, width, num_classes).to(parameter.device, dtype) for width in widths]
    # A layer that counts its own spikes averages them by channel, which is axis 1.
    neurons = [seen[place].neuron if axes[place] == 1 else None for place in places]
    taps = [
        Tap(time.modules[place], axes[place], which[place], neuron)
        for place, neuron in zip(places, neurons, strict=True)
    ]
    handles = [module.register_forward_hook(hook) for module, hook in zip(places.values(), taps, strict=True)]
    convolutions = patch_strided_1x1(model)
    network = ShortcutNetwork(
        model,
        list(places),
        heads,
        taps,
        handles,
        convolutions,
        layout=time.output,
        reduce=reduce,
        num_steps=num_steps,
        batch_axis=time.batch_axis,
    )
    network.training = model.training  # not train(), since modules inside may be frozen in `eval()`
    network.heads.train(model.training)
    return network


def _made_by(head: HeadFactory, in_features: int, num_classes: int) -> nn.Module:
    made = head(in_features, num_classes)
    if not isinstance(made, nn.Module):
        raise UserError(f"head: made a {type(made).__name__} for {in_features} features, but must make an nn.Module")
    return made


def _time_of(
    model: nn.Module,
    places: dict[str, nn.Module],
    sample: Tensor,
    layout: Layout | Literal["auto"],
    num_steps: int | None,
    which: dict[str, int | str | None],
) -> Found:
    """The layouts at the places: detected, or as the caller says."""
    owns_time = isinstance(model, SpikingNetwork)
    if owns_time and (layout not in ("auto", "folded") or num_steps is not None):
        said = "num_steps" if num_steps is not None else "layout"
        raise UserError(f"{said}: a SpikingNetwork owns its time steps, here {model.num_steps}: leave {said} out")
    if layout == "auto" and not owns_time:
        return find_layouts(model, sample, places, num_steps=num_steps, which=which)
    known: Layout = "folded" if layout == "auto" else layout
    return Found(0 if layout == "batch_first" else None, dict.fromkeys(places, known), {}, known)


@contextmanager
def _running(model: nn.Module) -> Iterator[None]:
    """Context for a dry run in `eval()`, from reset states, that leaves the network unchanged."""
    with undisturbed(model), torch.no_grad():
        reset_states(model)
        model.eval()
        yield


class _Seen(NamedTuple):
    """What the dry run saw at a place: its tensor, the layers called before it, and the neuron that fired it, if any.

    The layers are those with weights, the latest first; `which` selects one of several returned tensors.
    """

    module: nn.Module
    which: int | str | None
    layout: Layout
    tensor: Tensor
    layers: list[nn.Module]
    neuron: SpikingNeuron | None

    def place(self) -> Place:
        return Place(
            self.module, lambda output: tensor_of(output, self.which), self.tensor.shape, self.layout, self.layers
        )


def _feature_axes(model: nn.Module, sample: Tensor, seen: dict[str, _Seen], features: int | None) -> dict[str, int]:
    """The feature axis of each place: as given, else by its size, or by a dry run if that is ambiguous."""
    if features is not None:
        return {place: _given_axis(place, one, features) for place, one in seen.items()}
    found = find_feature_axes(model, sample, {place: one.place() for place, one in seen.items()})
    known = {place: axis for place, axis in found.items() if axis is not None}
    for place, one in seen.items():
        if place not in known:
            shape = one.tensor.shape
            raise UserError(
                f"at={place!r}: neither sizes nor a dry run show which axis of {list(shape)} holds the features: "
                f"use features={' or '.join(map(str, axes_of_features(shape, one.layout)))}"
            )
    return known


def _given_axis(place: str, seen: _Seen, features: int) -> int:
    shape, axes = seen.tensor.shape, axes_of_features(seen.tensor.shape, seen.layout)
    axis = features + len(shape) if features < 0 else features
    if axis not in axes:
        raise UserError(
            f"features={features}: {place} returns {list(shape)}, and with layout={seen.layout!r} the features lie "
            f"on an axis from {axes[0]} to {axes[-1]}"
        )
    return axis


def _dry_run(
    model: nn.Module,
    places: dict[str, nn.Module],
    sample: Tensor,
    time: Found,
    reduce: Reduction | None,
    num_steps: int | None,
    which: dict[str, int | str | None],
) -> tuple[dict[str, _Seen], int]:
    """Run the network once; returns what was seen at each place, and the number of classes."""
    outputs: dict[str, list[Any]] = {place: [] for place in places}
    layers: dict[str, list[nn.Module]] = {}
    sources: dict[str, SpikingNeuron] = {}
    # Every neuron, the tensor it returned and its version: once changed in place, the tensor is no longer its spikes.
    fired: list[tuple[SpikingNeuron, Any, int]] = []

    def watch(neuron: SpikingNeuron, inputs: tuple[Any, ...], output: Any) -> None:
        fired.append((neuron, output, version_of(output)))

    def recorder(place: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            outputs[place].append(output)
            layers[place] = calls.latest()
            for neuron, spikes, version in fired:
                if spikes is output and version_of(spikes) == version:
                    sources[place] = neuron

        return record

    # The hooks of neurons come first: if a place is a neuron itself, its recorder must find the spikes in `fired`.
    hooks = [(module, watch) for module in model.modules() if isinstance(module, SpikingNeuron)]
    hooks += [(module, recorder(place)) for place, module in places.items()]
    # The reference backend suffices for shapes, and spares a training with `compile: off` a useless compilation.
    with LayerCalls.of(model) as calls, hooked(hooks), with_backend("reference", model), _running(model):
        returned = model(sample.clone())
        warn_of_steps_in_a_tuple(returned)
        logits = logits_of(returned, time.output, reduce, num_steps=num_steps)
    num_samples, num_classes = logits.shape[-2:]
    seen = {}
    for place, found in outputs.items():
        elsewhere = {n for layer, n in calls.counts.items() if layer not in set(places[place].modules())}
        counts = elsewhere | {len(logits) if logits.ndim == 3 else 1}
        tensor = _checked(place, found, time, num_samples, counts, which[place])
        if _makes_output([tensor_of(output, which[place]) for output in found], logits, time.modules[place]):
            raise UserError(
                f"at={place!r}: the module makes the network's output, which has the main loss already: leave it out"
            )
        module, neuron = places[place], sources.get(place)
        seen[place] = _Seen(module, which[place], time.modules[place], tensor, layers[place], neuron)
    return seen, num_classes


def _makes_output(outputs: list[Any], logits: Tensor, layout: Layout) -> bool:
    """Whether what a module returned is the network's output, up to a mean or sum over time."""
    last = outputs[0].ndim - 1
    if not leading_axes(layout) <= last <= 2:
        return False
    averages = torch.stack([average_over_space(output, layout, features=last) for output in outputs]).mean(0)
    features, main = average_over_time(averages, logits.shape[-2], layout), mean_over_time(logits).to(averages)
    if features.shape != main.shape or not main.any():
        return False
    return torch.allclose(features * (main.norm() / features.norm()), main, rtol=1e-3, atol=1e-3 * float(main.std()))


def _checked(
    place: str,
    outputs: list[Any],
    time: Found,
    num_samples: int,
    counts: set[int],
    which: int | str | None,
) -> Tensor:
    """Return the tensor of a place, or raise if it cannot be tapped; `counts`: how often other layers are called."""
    if which is not None and any(tensor_of(output, which) is None for output in outputs):
        names = f", with {list(outputs[0])}" if isinstance(outputs[0], dict) else ""
        raise UserError(f"output={which!r}: {place} returns {type(outputs[0]).__name__}{names}, and no such tensor")
    outputs = [output if which is None else tensor_of(output, which) for output in outputs]
    layout, times = time.modules.get(place), len(outputs)
    if not outputs or (times > 1 and layout not in (None, "steps")):
        how_often = f"called {times} times" if times else "not called"
        raise UserError(
            f"at={place!r}: the module is {how_often} in a forward; a branch needs one that is called once"
            + (", or once a step, and then layout='steps'" if outputs else "")
        )
    if times > 1 and times not in counts:
        raise UserError(
            f"at={place!r}: the module is called {times} times in a forward, unlike any other layer: several places of "
            "the network share it, but a branch needs a single one; tap a module around one of its calls, or after it"
        )
    if layout is None and first_tensor(outputs[0]) is not None:
        raise UserError(
            f"at={place!r}: the module {time.undecided[place]}; use layout={' or '.join(map(repr, LAYOUTS))}, or tap "
            "another module"
        )
    for output in outputs:
        if reason := why_not(output, layout or "folded", num_samples):
            raise UserError(f"at={place!r}: the module {reason}")
    tensor = first_tensor(outputs[0])
    assert tensor is not None
    return tensor
