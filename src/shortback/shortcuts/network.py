"""A network with shortcut branches: the taps, the heads, and the one forward all logits leave through."""

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
from shortback.inspection.pointwise import make_usual
from shortback.inspection.untouched import first_in_graph, remembered_graph
from shortback.models.fused import average_of
from shortback.neurons import SpikingNeuron
from shortback.outputs import NoBranches, Outputs, remember_logits
from shortback.shortcuts.heads import Heads
from shortback.shortcuts.weights import with_branches
from shortback.spiking import SpikingNetwork
from shortback.torch_private import drop_hooks, hooks_of, is_replica

log = logging.getLogger("shortback")


class Tap:
    """A forward hook that keeps the average of a module's output while it is open.

    An object and not a closure, so that a deep copy of the network has taps of its own.

    Args:
        layout: of the output. Where the module is called once a step, the averages of all steps are added up.
        features: the axis of the features, where it is not the usual one of the layout.
        which: of several tensors that the module returns, by place or name; the first where it is None.
        neuron: the neuron whose spikes the module returns; None if it returns something else. A layer that runs as one
            operation counts the spikes itself, which costs no pass over the activation. That is taken of the very
            tensor the layer returned: in training the module may return another, as dropout does.
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
        self.average, self.num_calls = None, 0  # closed too, or a forward that fails would leave its graph behind
        if value:
            self.needs_gradient = torch.is_grad_enabled()
        if self.neuron is not None:
            self.neuron.averages_output = value

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not self._is_open:
            return
        if self.needs_gradient and not torch.is_grad_enabled():
            raise RuntimeError(
                f"a branch is tapped at {type(module).__name__}, which runs without gradients while the network has "
                "them: under activation checkpointing use use_reentrant=False, or tap what is checkpointed as a "
                "whole; under torch.no_grad() a branch cannot train what comes before it"
            )
        self.num_calls += 1
        tensor = tensor_of(output, self.which)
        assert tensor is not None
        is_counted = self.neuron is not None and not torch.compiler.is_compiling()  # where no layer is one operation
        average = average_of(tensor) if is_counted else None
        if average is None:
            average = average_over_space(tensor, self.layout, features=self.features_at)
        self.average = average if self.average is None else self.average + average

    def take(self, num_samples: int) -> Tensor:
        """The average over space and time, `[N, C]`, which the tap lets go of.

        Raises:
            RuntimeError: the module was not called, or several times where the layout has it called once.
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
    """What `attach` returns: the network and its branches.

    In `train()` a call returns the main logits and the logits of every branch. In `eval()`, and while
    `branches_enabled` is False, the network runs alone and `Outputs.branches` is empty.

    Averages are float32 at least, and so are the heads that `attach` makes, of a network in half precision too.
    `net.bfloat16()` and the like convert heads as they convert all weights; averages are then cast to what a head has.

    Attributes:
        model: the network given to `attach`, the very object.
        places: names of the tapped modules, in the order of the network.
        heads: the branches' heads, one for a place.
        taps: the hooks on the tapped modules, one for a place.
        branches_enabled: whether branches are computed in training; set False once the coefficient stays 0.
        is_stripped: whether `strip` took the branches off.
        batch_axis: of the input, along which the samples lie; None if its number of axes tells.
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
        self._num_checked = 0  # forwards in training, of which the first two are looked at
        self._convolutions = convolutions
        self._no_branches, self._logits_alone = NoBranches(), NoBranches()
        _networks.add(self)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Outputs:
        """Logits of the main output and of the branches.

        Args:
            x: what the network takes; all arguments are passed on to it.

        Raises:
            RuntimeError: the branches were stripped, or cannot be computed, and why.
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
            elif (name := first_in_graph(logits, remembered)) is not None:
                log.warning(
                    "%s remembers the batch before, where the gradient leads back to: call sb.reset_states(net) before "
                    "each batch",
                    name or "the network",
                )
        if not torch.compiler.is_compiling():
            remember_logits(logits, self._logits_alone)
        heads = zip(self.places, self.heads, strict=True)
        return Outputs(logits, {place: head(_as_of(head, averages[place])) for place, head in heads})

    def _warn_of_idle(self, averages: dict[str, Tensor]) -> None:
        idle = [place for place, average in averages.items() if not average.requires_grad]
        if idle:
            log.warning("nothing that is trained lies before the branches at %s: leave them out", ", ".join(idle))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; of the weights of the network alone too, and then the heads stay as they are.

        `shortback.load_weights` loads those of this network, branches and all, into one without.
        """
        with_heads = with_branches(state_dict, self)
        if with_heads is not None:
            log.warning("the weights have no branches: the heads of %d stay as they are", len(self.places))
        return super().load_state_dict(state_dict if with_heads is None else with_heads, strict, assign)

    def _logits(self, output: Any) -> Tensor:
        return logits_of(output, self.layout, self.reduce, num_steps=self.num_steps)

    def __deepcopy__(self, memo: dict[int, Any]) -> ShortcutNetwork:
        """A copy with taps of its own, on modules too whose own way of copying forgets hooks, as sinabs's does."""
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
        """Take the hooks off the tapped modules, and leave the network as `attach` found it, for good.

        Copies that were made of a tapped module since, and put in the network, are left as that was.
        """
        for handle in self._handles:
            handle.remove()
        make_usual(self._convolutions)
        self.is_stripped = True
        drop_idle_taps(self.model)

    def extra_repr(self) -> str:
        return f"places={list(self.places)}"


_networks: WeakSet[ShortcutNetwork] = WeakSet()  # all there are, which may open their taps


def drop_idle_taps(model: nn.Module) -> None:
    """Take off the taps that no network will open, such as those in a deep copy of a tapped module."""
    used = {tap for network in _networks if not network.is_stripped for tap in network.taps}

    def is_idle(hook: object) -> bool:
        return isinstance(hook, Tap) and hook not in used

    idle = [module for module in model.modules() if any(map(is_idle, hooks_of(module)))]
    for module in idle:
        drop_hooks(module, is_idle)
    if idle and not any(isinstance(hook, Tap) for module in model.modules() for hook in hooks_of(module)):
        make_usual([module for module in model.modules() if isinstance(module, nn.Conv2d)])


def _as_of(head: nn.Module, average: Tensor) -> Tensor:
    """An average in the precision of a head's weights."""
    weight = next(head.parameters(), None)
    return average if weight is None or not weight.is_floating_point() else average.to(weight.dtype)
