"""A network with shortcut branches: the taps, the heads, and the one forward all logits leave through."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shortback.losses import Outputs
from shortback.neurons import SpikingNeuron
from shortback.shortcuts.layout import Layout, Reduction, average_over_space, average_over_time, first_tensor, logits_of


class Tap:
    """A forward hook that keeps the average of a module's output while it is open.

    An object and not a closure, so that a deep copy of the network has taps of its own.

    Args:
        layout: of the output. Where the module is called once a step, the averages of all steps are added up.
        neuron: the neuron whose spikes are the output of the module, where that is so. A layer that runs as one
            operation then counts them itself, which costs no pass over the activation.
    """

    def __init__(self, layout: Layout = "folded", neuron: SpikingNeuron | None = None) -> None:
        self.layout: Layout = layout
        self.neuron = neuron
        self.features: Tensor | None = None
        self.num_calls = 0
        self._is_open = False

    @property
    def is_open(self) -> bool:
        return self._is_open

    @is_open.setter
    def is_open(self, value: bool) -> None:
        self._is_open = value
        if value:
            self.features, self.num_calls = None, 0
        if self.neuron is not None:
            self.neuron.averages_output = value

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not self._is_open:
            return
        if self.neuron is not None and self.neuron.output_average is not None:
            self.features, self.neuron.output_average = self.neuron.output_average, None
            return
        tensor = first_tensor(output)
        assert tensor is not None
        features = average_over_space(tensor, self.layout)
        before = self.features if self.layout == "steps" else None
        self.features = features if before is None else before + features
        self.num_calls += 1

    def take(self, num_samples: int) -> Tensor:
        """The average over space and time, `[N, C]`, which the tap lets go of."""
        features, self.features = self.features, None
        assert features is not None
        if self.layout == "steps":
            return features / self.num_calls
        return average_over_time(features, num_samples, self.layout)


class ShortcutNetwork(nn.Module):
    """What `attach` returns: the network and its branches.

    In `train()` a call returns the main logits and those of every branch; in `eval()`, and while `branches_enabled` is
    False, the network runs alone and `Outputs.branches` is empty.

    Attributes:
        model: the network given to `attach`, the very object.
        places: names of the tapped modules, in the order of the network.
        heads: the branches' heads, one for a place.
        branches_enabled: whether branches are computed in training; set False once the coefficient stays 0.
        is_stripped: whether `strip` took the branches off.
    """

    def __init__(
        self,
        model: nn.Module,
        places: list[str],
        heads: list[nn.Module],
        taps: list[Tap],
        handles: list[RemovableHandle],
        *,
        layout: Layout = "folded",
        reduce: Reduction | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleList(heads)
        self.places = tuple(places)
        self.branches_enabled = True
        self.is_stripped = False
        self.layout: Layout = layout
        self.reduce: Reduction | None = reduce
        self._taps = taps
        self._handles = handles

    def forward(self, x: Tensor) -> Outputs:
        """Logits of the main output and of the branches.

        Args:
            x: what the network takes.

        Raises:
            RuntimeError: the branches were stripped.
        """
        if self.is_stripped:
            raise RuntimeError("this network was stripped: call what strip() returned")
        if not (self.training and self.branches_enabled):
            return Outputs(logits_of(self.model(x), self.layout, self.reduce), {})
        for tap in self._taps:
            tap.is_open = True
        try:
            logits = logits_of(self.model(x), self.layout, self.reduce)
        finally:
            for tap in self._taps:
                tap.is_open = False
        num_samples = logits.shape[-2]
        branches = {
            place: head(tap.take(num_samples))
            for place, head, tap in zip(self.places, self.heads, self._taps, strict=True)
        }
        return Outputs(logits, branches)

    def remove_taps(self) -> None:
        """Take the hooks off the tapped modules, for good."""
        for handle in self._handles:
            handle.remove()
        self.is_stripped = True

    def extra_repr(self) -> str:
        return f"places={list(self.places)}"
