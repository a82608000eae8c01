"""Count the operations of a network of any library, finding its neurons, samples and time steps by running it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from shortback.choices import Layout
from shortback.errors import UserError
from shortback.export.counting import Count
from shortback.export.functions import products_in_functions
from shortback.inspection.calls import Calls
from shortback.inspection.detect import Found, find_layouts
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import tensor_of
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed

_GIVE = "give num_steps=, and batches (x, y) with an entry of y for each sample"

Batches = Iterable["Tensor | tuple[Tensor, Any]"]


def count_any(model: nn.Module, batches: Batches, *, num_steps: int | None = None) -> tuple[Count, int]:
    """Count the operations of the layers and the spikes of the neurons; the network is left as it was.

    Args:
        batches: as for `count_operations`.
        num_steps: `T`; `batches` are then pairs `(x, y)` with an entry of `y` for each sample. If not given, both the
            number of steps and the samples are found by running the network.

    Returns:
        The counts and the number of time steps.

    Raises:
        ValueError: there is no image, no neuron fires, or the samples or steps cannot be found; the message says what
            to pass.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    rest = iter(batches)
    first = next(rest, None)
    if first is None or not len(input_of_batch(first)):
        raise UserError("count_operations(): there is no image in the batches")
    x = input_of_batch(first).to(device)
    neurons = _Neurons(model, x)
    found = neurons.find(x) if num_steps is None else None
    with undisturbed(model, x), torch.no_grad():
        model.eval()
        reset_states(model)
        functions = products_in_functions(model, x)
        count = Count(model)
        count.not_counted += functions
        try:
            with hooked((m, functools.partial(neurons.note, name, count)) for name, m in neurons.modules.items()):
                for batch in itertools.chain([first], rest):
                    x = input_of_batch(batch).to(device)
                    reset_states(model)
                    model(x)
                    num_samples = _num_labels(batch) if found is None else x.shape[found.batch_axis or 0]
                    if num_steps is None:
                        assert found is not None
                        num_steps = neurons.num_steps(found, num_samples)
                    count.images += num_samples
                    count.batches += 1
        finally:
            count.remove()
    assert num_steps is not None
    return count, num_steps


def input_of_batch(batch: Tensor | tuple[Tensor, Any]) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch[0]


def dense_of_ann(count: Count, num_steps: int) -> float:
    """Dense operations per image as an ANN: a layer that runs at every time step is counted for one step.

    A layer that is not applied a multiple of `T` times per image comes before time begins and runs once.
    """
    each = [(layer.dense, layer.maps % (count.images * num_steps) == 0) for layer in count.layers.values()]
    return sum(dense / (num_steps if runs_in_time else 1) for dense, runs_in_time in each) / count.images


class _Neurons:
    """The spiking neurons of a network, and the shapes of the spikes they return."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        calls = Calls.of(model, x)
        self.model = model
        self.modules = {name: module for name, module in model.named_modules() if name and module in calls.firing}
        if not self.modules:
            raise UserError(
                f"count_operations(): no neuron is seen to fire in {type(model).__name__}: give a spiking network, "
                "with neurons of shortback, SpikingJelly, snnTorch, Norse or sinabs, or your own neurons that fire for "
                "these images; spikify(ann, num_steps=T) makes one from an ANN"
            )
        self._which = {name: calls.spikes_at.get(module) for name, module in self.modules.items()}
        self._shapes: dict[str, list[torch.Size]] = {name: [] for name in self.modules}

    def find(self, x: Tensor) -> Found:
        try:
            return find_layouts(self.model, x, self.modules, which=self._which)
        except UserError as error:
            raise UserError(
                f"count_operations(): running {type(self.model).__name__} does not show which axis of its input "
                f"{list(x.shape)} holds the samples: {_GIVE}"
            ) from error

    def note(self, name: str, count: Count, module: nn.Module, args: Any, output: Any) -> None:
        spikes = tensor_of(output, self._which[name])
        if spikes is None:
            return
        if not count.batches:
            self._shapes[name].append(spikes.shape)
        count.note_spikes(name, spikes)
        if not ((spikes == 0) | (spikes == 1)).all():
            count.graded.add(name)

    def num_steps(self, found: Found, num_samples: int) -> int:
        """The number of time steps on which the neurons agree, from their outputs for the first batch."""
        steps = set()
        for name, layout in found.modules.items():
            if found.output == "batch_first" and layout == "folded":  # the neurons have samples on the first axis too
                layout = "batch_first"
            if (several := _steps(layout, self._shapes[name], num_samples)) is not None:
                steps.add(several)
        if len(steps) != 1 or steps == {1}:
            seen = " or ".join(map(str, sorted(steps))) or "none"
            raise UserError(
                f"count_operations(): how many time steps {type(self.model).__name__} runs is not clear from its "
                f"neurons (which say {seen}): {_GIVE}"
            )
        return steps.pop()


def _steps(layout: Layout, shapes: list[torch.Size], num_samples: int) -> int | None:
    """The number of time steps a neuron ran, from the shapes of all its outputs; None if they do not tell."""
    if layout == "steps":
        return len(shapes)
    if len(shapes) != 1 or len(shapes[0]) < 2:
        return None
    (shape,) = shapes
    by_axis = {"time_first": shape[0], "batch_first": shape[1], "time_last": shape[-1]}
    return by_axis.get(layout, shape[0] // num_samples)


def _num_labels(batch: Tensor | tuple[Tensor, Any]) -> int:
    """The number of samples in a batch, from its labels: which axis of the input is time is not known."""
    y = None if isinstance(batch, Tensor) or len(batch) < 2 else batch[1]
    if not isinstance(y, Tensor) or not y.ndim:
        raise UserError(f"count_operations(): num_steps= without labels does not tell the number of samples: {_GIVE}")
    return len(y)
