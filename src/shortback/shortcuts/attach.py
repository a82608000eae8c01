"""Attach shortcut branches to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from shortback.detection import Found, find_layouts
from shortback.health.activity import fires, may_fire
from shortback.layer_calls import LayerCalls
from shortback.layout import LAYOUTS, Layout, Reduction, feature_axis, first_tensor, logits_of, why_not
from shortback.libraries import whole_modules
from shortback.neurons import SpikingNeuron
from shortback.pointwise import make_safe
from shortback.shortcuts.heads import HeadFactory, linear_head
from shortback.shortcuts.network import ShortcutNetwork, Tap
from shortback.shortcuts.places import Calls, find_places
from shortback.spiking import SpikingNetwork
from shortback.states import reset_states
from shortback.undisturbed import undisturbed


def attach(
    model: nn.Module,
    *,
    at: str | Sequence[str] = "blocks",
    sample: Tensor,
    head: HeadFactory = linear_head,
    layout: Layout | Literal["auto"] = "auto",
    reduce: Reduction | None = None,
    num_steps: int | None = None,
) -> ShortcutNetwork:
    """Give a network shortcut branches from intermediate modules straight to the loss (Guo et al., NeurIPS 2024).

    Dry runs on `sample`, in `eval()` and without gradients, find how time runs through the network and size the heads;
    they leave weights, statistics, states, modes and the random state as they were. The branches live outside the
    network: its keys and parameters stay what they are, and `strip` takes every trace away.

    Args:
        model: any network; its output is `[N, K]`, or one for each step: see `reduce`. It is not copied.
        at: `"blocks"` or `"stages"` (after each but the last), names of modules, or `"auto"`: as few blocks as bring
            every layer's gradient inside the band, see `shortback.shortcuts.auto`.
        sample: an input to run, on the device of the model. Two samples are enough; with `"auto"`, which measures
            on it, give some sixteen real ones.
        head: makes the head of a branch.
        layout: how time runs through the network (`shortback.layout`), the same at every place; `"auto"` finds it out,
            at each place, see `shortback.detection`.
        reduce: what makes `[N, K]` of an output for each step, `[T, N, K]`, `[N, T, K]` or a list over steps; None
            leaves it as `[T, N, K]`. Of a tuple, such as (spikes, membranes), the first is taken.
        num_steps: `T`, for a network whose input and output are folded as its modules are, `[T*N, ...]` or
            `[N*T, ...]`; not for one that folds and unfolds by itself.

    Raises:
        ValueError: a place that does not exist, is not called once (or once a step) or does not return a tensor of the
            layout; a layout that is not to be found; a network that is compiled, wrapped or has branches already.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"layout={layout!r}: must be one of auto, {', '.join(LAYOUTS)}")
    if reduce not in (None, "mean", "sum", "last"):
        raise ValueError(f"reduce={reduce!r}: must be 'mean', 'sum', 'last' or None")
    _refuse_unsuitable(model)
    if at == "auto":
        from shortback.shortcuts.auto import choose_places  # which attaches to measure

        at = choose_places(model, sample, layout=layout, reduce=reduce, num_steps=num_steps)
    places = find_places(model, at, run=lambda: _calls(model, sample))
    time = _time_of(model, places, sample, layout, num_steps)
    seen, num_classes = _dry_run(model, places, sample, time, reduce, num_steps)
    parameter = next(model.parameters(), sample)
    with torch.random.fork_rng(devices=[]):  # a run with branches draws the same numbers as one without
        dtype = torch.promote_types(parameter.dtype, torch.float32)  # that of the averages
        heads = [head(seen[place].num_features, num_classes).to(parameter.device, dtype) for place in places]
    taps = [Tap(time.modules[place], seen[place].feature_axis, seen[place].neuron) for place in places]
    handles = [module.register_forward_hook(tap) for module, tap in zip(places.values(), taps, strict=True)]
    convolutions = make_safe(model)
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
    return network.train(model.training)


def _refuse_unsuitable(model: nn.Module) -> None:
    if isinstance(model, ShortcutNetwork):
        raise ValueError("the network has branches already: strip() it first")
    if isinstance(model, nn.DataParallel):
        raise ValueError("nn.DataParallel runs copies that share their taps: use DistributedDataParallel instead")
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError("attach to the network itself, net = attach(model.module, ...), and wrap what comes back")
    for name, module in model.named_modules():
        # torch.compile(module) wraps and module.compile() marks; asking for the wrapper's class would import dynamo.
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            where = f"its module {name!r}" if name else "the network"
            raise ValueError(f"{where} is compiled, and would not see its branches: attach first, then torch.compile")


def _time_of(
    model: nn.Module,
    places: dict[str, nn.Module],
    sample: Tensor,
    layout: Layout | Literal["auto"],
    num_steps: int | None,
) -> Found:
    """How time runs through the places: found out, or as the caller says."""
    if layout == "auto" and not isinstance(model, SpikingNetwork):
        return find_layouts(model, sample, places, num_steps=num_steps)
    known: Layout = "folded" if layout == "auto" else layout
    return Found(0 if layout == "batch_first" else None, dict.fromkeys(places, known), {}, known)


@contextmanager
def _running(model: nn.Module) -> Iterator[None]:
    """For a run that is to leave no trace."""
    with undisturbed(model), torch.no_grad():
        reset_states(model)
        model.eval()
        yield


def _calls(model: nn.Module, sample: Tensor) -> Calls:
    """What a forward calls, and what of that fires."""
    calls = Calls(set(), set())

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls.modules.add(module)
        spikes = first_tensor(output)
        if spikes is not None and may_fire(module) and fires(module, inputs, spikes):
            calls.firing.add(module)

    handles = [module.register_forward_hook(note) for _, module in whole_modules(model)]
    try:
        with _running(model):
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    return calls


class _Seen(NamedTuple):
    """What a place returns: so many features on an axis, and the spikes of a neuron where it is these alone."""

    num_features: int
    feature_axis: int
    neuron: SpikingNeuron | None


def _dry_run(
    model: nn.Module,
    places: dict[str, nn.Module],
    sample: Tensor,
    time: Found,
    reduce: Reduction | None,
    num_steps: int | None,
) -> tuple[dict[str, _Seen], int]:
    """What is at each place, and the number of classes."""
    outputs: dict[str, list[Any]] = {place: [] for place in places}
    layers: dict[str, nn.Module | None] = {}
    sources: dict[str, SpikingNeuron] = {}
    # By neuron the tensor it returned, and its version: changed in place since, it is no longer its spikes.
    fired: list[tuple[SpikingNeuron, Any, int]] = []

    def watch(neuron: SpikingNeuron, inputs: tuple[Any, ...], output: Any) -> None:
        fired.append((neuron, output, output._version))

    def recorder(place: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            outputs[place].append(output)
            layers[place] = calls.last
            for neuron, spikes, version in fired:
                if spikes is output and spikes._version == version:
                    sources[place] = neuron

        return record

    with LayerCalls.of(model) as calls:
        # The neurons' hooks first: of a place that is a neuron itself, both see the call.
        neurons = [module for module in model.modules() if isinstance(module, SpikingNeuron)]
        handles = [neuron.register_forward_hook(watch) for neuron in neurons]
        handles += [module.register_forward_hook(recorder(place)) for place, module in places.items()]
        try:
            with _running(model):
                logits = logits_of(model(sample), time.output, reduce, num_steps=num_steps)
        finally:
            for handle in handles:
                handle.remove()
    num_samples, num_classes = logits.shape[-2:]
    seen = {}
    for place, found in outputs.items():
        elsewhere = {n for layer, n in calls.counts.items() if layer not in set(places[place].modules())}
        tensor = _checked(place, found, time, num_samples, elsewhere | {len(logits) if logits.ndim == 3 else 1})
        axis = feature_axis(tensor.shape, time.modules[place], layers[place])
        seen[place] = _Seen(tensor.shape[axis], axis, sources.get(place))
    return seen, num_classes


def _checked(place: str, outputs: list[Any], time: Found, num_samples: int, counts: set[int]) -> Tensor:
    """What a place returned, if it can be tapped; `counts` is how often other layers are called."""
    layout, times = time.modules.get(place), len(outputs)
    if not outputs or (times > 1 and layout not in (None, "steps")):
        how_often = f"called {times} times" if times else "not called"
        raise ValueError(
            f"at={place!r}: the module is {how_often} in a forward; a branch needs one that is called once"
            + (", or once a step, and then layout='steps'" if outputs else "")
        )
    if times > 1 and times not in counts:
        raise ValueError(
            f"at={place!r}: the module is called {times} times in a forward, and no other layer is: several places of "
            "the network share it, and a branch needs one; tap what is around a call, or after it"
        )
    if layout is None and first_tensor(outputs[0]) is not None:
        raise ValueError(
            f"at={place!r}: the module {time.undecided[place]}; say layout={' or '.join(map(repr, LAYOUTS))}, or tap "
            "another"
        )
    for output in outputs:
        if reason := why_not(output, layout or "folded", num_samples):
            raise ValueError(f"at={place!r}: the module {reason}")
    tensor = first_tensor(outputs[0])
    assert tensor is not None
    return tensor
