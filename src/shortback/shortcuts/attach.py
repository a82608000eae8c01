"""Attach shortcut branches to a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shortback.neurons import SpikingNeuron
from shortback.shortcuts.heads import HeadFactory, linear_head
from shortback.shortcuts.layout import LAYOUTS, Layout, Reduction, first_tensor, logits_of, why_not
from shortback.shortcuts.network import ShortcutNetwork, Tap
from shortback.shortcuts.places import find_places
from shortback.states import reset_states
from shortback.undisturbed import undisturbed


def attach(
    model: nn.Module,
    *,
    at: str | Sequence[str] = "blocks",
    sample: Tensor,
    head: HeadFactory = linear_head,
    layout: Layout = "folded",
    reduce: Reduction | None = None,
) -> ShortcutNetwork:
    """Give a network shortcut branches from intermediate modules straight to the loss (Guo et al., NeurIPS 2024).

    One dry run on `sample`, in `eval()` and without gradients, sizes the heads; it leaves weights, statistics, modes
    and the random state as they were. The branches live outside the network: its keys and parameters stay what they
    are, and `strip` takes every trace away.

    Args:
        model: any network; its output is `[N, K]`, or one for each step: see `reduce`. It is not copied.
        at: `"blocks"` or `"stages"` (after each but the last), names of modules, or `"auto"`: as few blocks as bring
            every layer's gradient inside the band, see `shortback.shortcuts.auto`.
        sample: an input to run once, on the device of the model. Two samples are enough; with `"auto"`, which measures
            on it, give some sixteen real ones.
        head: makes the head of a branch.
        layout: how time runs through the network (`shortback.shortcuts.layout`). `"folded"` is that of `create_model`,
            `spikify` and networks without time.
        reduce: what makes `[N, K]` of an output for each step, `[T, N, K]`, `[N, T, K]` or a list over steps; None
            leaves it as `[T, N, K]`. Of a tuple, such as (spikes, membranes), the first is taken.

    Raises:
        ValueError: a place that does not exist, is not called once (once a step with `layout="steps"`) or does not
            return a tensor of that layout; a network that is compiled or has branches already.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: must be one of {', '.join(LAYOUTS)}")
    if reduce not in (None, "mean", "sum", "last"):
        raise ValueError(f"reduce={reduce!r}: must be 'mean', 'sum', 'last' or None")
    _refuse_unsuitable(model)
    if at == "auto":
        from shortback.shortcuts.auto import choose_places  # which attaches to measure

        at = choose_places(model, sample)
    places = find_places(model, at)
    seen, num_classes = _dry_run(model, places, sample, layout, reduce)
    parameter = next(model.parameters(), sample)
    with torch.random.fork_rng(devices=[]):  # a run with branches draws the same numbers as one without
        dtype = torch.promote_types(parameter.dtype, torch.float32)  # that of the averages
        heads = [head(seen[place].num_features, num_classes).to(parameter.device, dtype) for place in places]
    taps = [Tap(layout, seen[place].neuron) for place in places]
    handles = [module.register_forward_hook(tap) for module, tap in zip(places.values(), taps, strict=True)]
    network = ShortcutNetwork(model, list(places), heads, taps, handles, layout=layout, reduce=reduce)
    return network.train(model.training)


def _refuse_unsuitable(model: nn.Module) -> None:
    if isinstance(model, ShortcutNetwork):
        raise ValueError("the network has branches already: strip() it first")
    for name, module in model.named_modules():
        # torch.compile(module) wraps and module.compile() marks; asking for the wrapper's class would import dynamo.
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            where = f"its module {name!r}" if name else "the network"
            raise ValueError(f"{where} is compiled, and would not see its branches: attach first, then torch.compile")


class _Seen(NamedTuple):
    """What a place returns: so many features, and the spikes of a neuron where it is these and nothing else."""

    num_features: int
    neuron: SpikingNeuron | None


def _dry_run(
    model: nn.Module, places: dict[str, nn.Module], sample: Tensor, layout: Layout, reduce: Reduction | None
) -> tuple[dict[str, _Seen], int]:
    """What is at each place, and the number of classes."""
    outputs: dict[str, list[Any]] = {place: [] for place in places}
    sources: dict[str, SpikingNeuron] = {}
    # By neuron the tensor it returned, and its version: changed in place since, it is no longer its spikes.
    fired: list[tuple[SpikingNeuron, Any, int]] = []

    def watch(neuron: SpikingNeuron, inputs: tuple[Any, ...], output: Any) -> None:
        fired.append((neuron, output, output._version))

    def recorder(place: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            outputs[place].append(output)
            for neuron, spikes, version in fired:
                if spikes is output and spikes._version == version:
                    sources[place] = neuron

        return record

    # The neurons' hooks first: of a place that is a neuron itself, both see the call.
    neurons = [module for module in model.modules() if isinstance(module, SpikingNeuron)]
    handles = [neuron.register_forward_hook(watch) for neuron in neurons]
    handles += [module.register_forward_hook(recorder(place)) for place, module in places.items()]
    try:
        with undisturbed(model), torch.no_grad():
            reset_states(model)
            logits = logits_of(model.eval()(sample), layout, reduce)
    finally:
        for handle in handles:
            handle.remove()
    num_samples, num_classes = logits.shape[-2:]
    seen = {
        place: _Seen(_num_features(place, found, layout, num_samples), sources.get(place))
        for place, found in outputs.items()
    }
    return seen, num_classes


def _num_features(place: str, outputs: list[Any], layout: Layout, num_samples: int) -> int:
    if not outputs or (len(outputs) != 1 and layout != "steps"):
        times = "is not called" if not outputs else f"is called {len(outputs)} times"
        raise ValueError(
            f"at={place!r}: the module {times} in a forward; a branch needs one that is called once"
            + (", or once a step, and then layout='steps'" if outputs else "")
        )
    for output in outputs:
        if reason := why_not(output, layout, num_samples):
            raise ValueError(f"at={place!r}: the module {reason}")
    tensor = first_tensor(outputs[0])
    assert tensor is not None
    return tensor.shape[2 if layout in ("time_first", "batch_first") else 1]
