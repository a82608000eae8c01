"""A network with shortcut branches: the taps, the heads, and the forward that returns all logits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shortback.choices import Layout, Reduction
from shortback.inspection.layout import average_over_space, average_over_time, logits_of, tensor_of
from shortback.inspection.pointwise import unpatch_strided_1x1
from shortback.inspection.remembered import reached_in_graph, remembered_graph
from shortback.models.fused import average_of
from shortback.neurons import SpikingNeuron
from shortback.outputs import NoBranches, Outputs, remember_logits
from shortback.shortcuts.heads import Heads, cast_for
from shortback.shortcuts.weights import with_branches
from shortback.spiking import SpikingNetwork
from shortback.torch_private import drop_hooks, hooks_of, is_replica

log = logging.getLogger("shortback")


class Tap:
    """A forward hook that, while open, keeps the average of a module's output.

    A tap is an object, not a closure, so that a deep copy of the network has taps of its own.

    Args:
        layout: the layout of the output. For `"steps"`, the averages of all steps are summed.
        features: the feature axis, if not the usual one of the layout.
        which: which of several returned tensors to average, by index or key; None takes the first.
        neuron: the neuron whose spikes the module returns; None if it returns something else. A layer that runs as one
            operation counts its own spikes, which saves a pass over the activation. This count is attached to the
            tensor that the layer returned, so it is not used if the module returns another one, as dropout does in
            training.
    """

    def __init__(
        self,
        layout: Layout = "folded",
        features: int | None = None,
        which: int | str | None = None,
        neuron: SpikingNeuron | None = None,
    ) -> None:
        self.layout: Layout = layout
        self.which = which
        self.features_at = features
        self.neuron = neuron
        self.average: Tensor | None = None
        self.num_calls = 0
        self.needs_gradient = False
        self._is_open = False

    @property
    def is_open(self) -> bool:
        return self._is_open

    @is_open.setter
    def is_open(self, value: bool) -> None:
        self._is_open = value
        self.average, self.num_calls = None, 0  # on closing too: a failed forward would otherwise leave its graph here
        if value:
            self.needs_gradient = torch.is_grad_enabled()
        if self.neuron is not None:
            self.neuron.averages_output = value

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not self._is_open:
            return
        if self.needs_gradient and not torch.is_grad_enabled():
            raise RuntimeError(
                f"a branch taps {type(module).__name__}, which runs without gradients while the network runs with "
                "them: under activation checkpointing use use_reentrant=False, or tap the checkpointed module as a "
                "whole; under torch.no_grad() a branch cannot train the layers before it"
            )
        self.num_calls += 1
        tensor = tensor_of(output, self.which)
        assert tensor is not None
        is_counted = self.neuron is not None and not torch.compiler.is_compiling()  # compiled, no layer counts spikes
        average = average_of(tensor) if is_counted else None
        if average is None:
            average = average_over_space(tensor, self.layout, features=self.features_at)
        self.average = average if self.average is None else self.average + average

    def take(self, num_samples: int) -> Tensor:
        """Return the average over space and time, `[N, C]`, and release it.

        Raises:
            RuntimeError: the module was not called, or was called several times in a layout other than `"steps"`.
        """
        average, self.average = self.average, None
        if average is None or (self.num_calls != 1 and self.layout != "steps"):
            raise RuntimeError(
                f"a tapped module was called {self.num_calls} times in this forward, unlike in the dry run of "
                "attach(): tap a module that is called the same way every time"
            )
        if self.layout == "steps":
            return average / self.num_calls
        return average_over_time(average, num_samples, self.layout)


class ShortcutNetwork(nn.Module):
    """A network and its shortcut branches, as returned by `attach`.

    In `train()` a call returns the main logits and the logits of every branch. In `eval()`, and while
    `branches_enabled` is False, the network runs alone and `Outputs.branches` is empty.

    Averages have at least float32 precision, and so have the heads that `attach` makes, even for a network in half
    precision. `net.bfloat16()` and the like convert the heads too; averages are then cast to the dtype of their head.

    Attributes:
        model: the network given to `attach`, the very same object.
        places: names of the tapped modules, in the order of the network.
        heads: the heads of the branches, one for each place.
        taps: the hooks on the tapped modules, one for each place.
        branches_enabled: whether branches are computed in training; set False once the coefficient stays 0.
        is_stripped: whether `strip` removed the branches.
        batch_axis: the axis of the input along which the samples lie; None if the number of axes determines it.
    """

    def __init__(
        self,
        model: nn.Module,
        places: list[str],
        heads: list[nn.Module],
        taps: list[Tap],
        handles: list[RemovableHandle],
        convolutions: list[nn.Conv2d],
        *,
        layout: Layout = "folded",
        reduce: Reduction | None = None,
        num_steps: int | None = None,
        batch_axis: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.heads: nn.ModuleList = Heads(heads, places)
        self.places = tuple(places)
        self.branches_enabled = True
        self.is_stripped = False
        self.layout: Layout = layout
        self.reduce: Reduction | None = reduce
        self.num_steps = num_steps
        self.batch_axis = batch_axis
        self.taps = taps
        self._handles = handles
        self._num_checked = 0  # the first two forwards in training are checked
        self._convolutions = convolutions
        self._no_branches, self._logits_alone = NoBranches(), NoBranches()
        _networks.add(self)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Outputs:
        """Return the logits of the main output and of the branches.

        Args:
            x: the input; all arguments are passed on to the network.

        Raises:
            RuntimeError: the network was stripped, or its branches cannot be computed; the message says why.
        """
        if self.is_stripped:
            raise RuntimeError("this network was stripped: call what strip() returned")
        if not (self.training and self.branches_enabled):
            may_be_mistaken = not self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
            none = self._no_branches if may_be_mistaken and self.branches_enabled else {}
            return Outputs(self._logits(self.model(x, *args, **kwargs)), none)
        if is_replica(self):
            raise RuntimeError("nn.DataParallel runs copies that share their taps: use DistributedDataParallel instead")
        is_watched = torch.is_grad_enabled() and not torch.compiler.is_compiling() and self._num_checked < 2
        remembered = remembered_graph(self.model) if is_watched and self._num_checked else {}
        for tap in self.taps:
            tap.is_open = True
        try:
            logits = self._logits(self.model(x, *args, **kwargs))
            averages = {place: tap.take(logits.shape[-2]) for place, tap in zip(self.places, self.taps, strict=True)}
        finally:
            for tap in self.taps:
                tap.is_open = False
        if is_watched:
            self._num_checked += 1
            if self._num_checked == 1:
                self._warn_of_idle(averages)
            elif (name := reached_in_graph(logits, remembered)) is not None:
                log.warning(
                    "%s remembers the last batch, and the gradient leads back into it: call sb.reset_states(net) "
                    "before each batch",
                    name or "the network",
                )
        if not torch.compiler.is_compiling():
            remember_logits(logits, self._logits_alone)
        heads = zip(self.places, self.heads, strict=True)
        return Outputs(logits, {place: head(cast_for(head, averages[place])) for place, head in heads})

    def _warn_of_idle(self, averages: dict[str, Tensor]) -> None:
        idle = [place for place, average in averages.items() if not average.requires_grad]
        if idle:
            log.warning("no trainable weights precede the branches at %s: leave them out", ", ".join(idle))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict of this network, or one of the network without branches, which leaves the heads unchanged.

        To load the weights of a network with branches into one without, use `shortback.load_weights`.
        """
        with_heads = with_branches(state_dict, self)
        if with_heads is not None:
            log.warning("the weights have no branches: the heads of %d branches were not loaded", len(self.places))
        return super().load_state_dict(state_dict if with_heads is None else with_heads, strict, assign)

    def _logits(self, output: Any) -> Tensor:
        return logits_of(output, self.layout, self.reduce, num_steps=self.num_steps)

    def __deepcopy__(self, memo: dict[int, Any]) -> ShortcutNetwork:
        """Copy the network with taps of its own, also on modules whose own copy drops hooks, as sinabs's do."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        if not self.is_stripped:
            network = copied.model.network if isinstance(copied.model, SpikingNetwork) else copied.model
            for index, (place, tap) in enumerate(zip(copied.places, copied.taps, strict=True)):
                module = network.get_submodule(place)
                if tap not in hooks_of(module):
                    copied._handles[index] = module.register_forward_hook(tap)
        _networks.add(copied)
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        _networks.add(self)

    def remove_taps(self) -> None:
        """Remove the hooks from the tapped modules for good, and leave the network as `attach` found it.

        Copies of a tapped module that were put into the network since then lose their hooks as well.
        """
        for handle in self._handles:
            handle.remove()
        unpatch_strided_1x1(self._convolutions)
        self.is_stripped = True
        drop_idle_taps(self.model)

    def extra_repr(self) -> str:
        return f"places={list(self.places)}"


_networks: WeakSet[ShortcutNetwork] = WeakSet()  # all that exist: only these may open their taps


def drop_idle_taps(model: nn.Module) -> None:
    """Remove the taps that no network will open, such as those in a deep copy of a tapped module."""
    used = {tap for network in _networks if not network.is_stripped for tap in network.taps}

    def is_idle(hook: object) -> bool:
        return isinstance(hook, Tap) and hook not in used

    idle = [module for module in model.modules() if any(map(is_idle, hooks_of(module)))]
    for module in idle:
        drop_hooks(module, is_idle)
    if idle and not any(isinstance(hook, Tap) for module in model.modules() for hook in hooks_of(module)):
        unpatch_strided_1x1([module for module in model.modules() if isinstance(module, nn.Conv2d)])
