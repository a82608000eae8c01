r"""Spiking neurons as modules: whole sequences on folded time, and one step at a time for streaming.

Every sequence starts from the same membrane (`initial`, 0 by default) and leaves no state behind, so there is nothing
to reset. The equations are in `shortback.ops.Dynamics`; the kinds of neuron differ only in the decay $\lambda$.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from shortback import ops
from shortback.choices import Backend, Memory, NeuronKind, Reset, check_choice
from shortback.errors import UserError
from shortback.foreign import refuse_library_neurons
from shortback.ops.dynamics import check_count, check_number
from shortback.surrogates import Surrogate, Triangular

NeuronFactory = Callable[[int], nn.Module]
"""A callable that takes a number of time steps and returns a neuron, e.g. `functools.partial(LIF, decay=0.25)`."""


class NeuronSettings(TypedDict, total=False):
    """Keyword arguments that every neuron takes: see `SpikingNeuron`."""

    threshold: float
    reset: Reset
    detach_reset: bool
    surrogate: Surrogate | None
    reset_to: float
    initial: float
    fires_above: bool
    decay_input: bool
    backend: Backend


class TimeModule(nn.Module):
    """A module that knows the number of time steps; its output is folded, `[T*N, ...]` time-major.

    Attributes:
        num_steps: number of time steps `T`.
        static_input: whether the input is `[N, ...]`, the same at every step, and is expanded by this module; otherwise
            the input is `[T*N, ...]`.
    """

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        check_count("num_steps", num_steps)
        self.num_steps = num_steps
        self.static_input = False

    def unfold(self, x: Tensor) -> Tensor:
        """Return the input as `[T, N, ...]`, or as `[1, N, ...]` if it is static.

        Raises:
            ValueError: the number of rows is not a multiple of `num_steps`.
        """
        if self.static_input:
            return x.unsqueeze(0)
        if x.shape[0] % self.num_steps:
            raise UserError(
                f"{type(self).__name__} with num_steps={self.num_steps} got {x.shape[0]} rows, no multiple of "
                f"{self.num_steps}: the input must be folded, [T*N, ...] time-major"
            )
        return x.unflatten(0, (self.num_steps, -1))


class Expand(TimeModule):
    """Repeats a static input at every step, `[N, ...] -> [T*N, ...]`; passes a folded sequence on unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        self.unfold(x)  # for its check
        return torch.cat([x] * self.num_steps) if self.static_input else x  # keeps channels-last


class SpikingNeuron(TimeModule):
    """Base class of the neurons; a subclass defines the decay by `leak`.

    Args:
        num_steps: number of time steps `T` of a sequence.
        threshold: membrane potential at which the neuron fires.
        reset: `"hard"` (to `reset_to`), `"soft"` (by subtracting the threshold) or `"none"`.
        detach_reset: whether the gradient ignores the path through the reset.
        surrogate: replaces the derivative of firing; `Triangular(half_width=1)` if not given.
        reset_to: membrane after a hard reset; see `shortback.ops.Dynamics` for a membrane that also leaks towards it.
        initial: membrane before the first step.
        fires_above: whether the neuron fires only above the threshold, and not at it.
        decay_input: whether the input is multiplied by 1 minus the decay.
        backend: `"auto"`, `"reference"` or `"compiled"`, see `shortback.ops.resolve`.

    Attributes:
        memory: what a layer that ends in this neuron keeps for the backward pass: `"fast"`, `"balanced"` or
            `"small"`, see `shortback.ops.layer`.
        averages_output: whether such a layer attaches the average of its spikes over time and space to them, see
            `shortback.models.fused.average_of`.
        on_spikes: called with the spikes of every `forward`. Unlike a hook, it lets the neuron run as one operation
            with its layer.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    def __init__(
        self,
        num_steps: int = 1,
        *,
        threshold: float = 1.0,
        reset: Reset = "hard",
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
        reset_to: float = 0.0,
        initial: float = 0.0,
        fires_above: bool = False,
        decay_input: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(num_steps)
        self.dynamics = ops.Dynamics(
            threshold=threshold,
            reset=reset,
            detach_reset=detach_reset,
            surrogate=surrogate or Triangular(),
            reset_to=reset_to,
            initial=initial,
            fires_above=fires_above,
            decay_input=decay_input,
        )
        check_choice("backend", backend, Backend)
        self.backend: Backend = backend
        self.memory: Memory = "balanced"
        self.averages_output = False
        self.on_spikes: Callable[[Tensor], None] | None = None

    def leak(self) -> float | Tensor:
        """Return the factor by which the membrane decays per step."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes of a whole sequence, `[T*N, ...]`, in the dtype and memory format of the input.

        Args:
            x: input current, `[T*N, ...]` time-major, or `[N, ...]` if `static_input`.

        Raises:
            ValueError: the number of rows is not a multiple of `num_steps`.
        """
        spikes, _ = ops.multi_step(
            self.unfold(x),
            dynamics=self.dynamics,
            decay=self.leak(),
            num_steps=self.num_steps,
            backend=self.backend,
        )
        spikes = spikes.flatten(0, 1)
        if self.on_spikes is not None:
            self.on_spikes(spikes)
        return spikes

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run one time step, for streaming.

        Args:
            x: input current, `[N, ...]`.
            state: membrane that the previous step returned, `[N, ...]` in float32; None at the start of a sequence.

        Returns:
            The spikes `[N, ...]` and the new state.

        Raises:
            ValueError: the shape of the state differs from that of the input, e.g. the state of another batch.
        """
        spikes, state = ops.multi_step(
            x.unsqueeze(0),
            dynamics=self.dynamics,
            decay=self.leak(),
            num_steps=1,
            initial=state,
            return_state=True,
            backend=self.backend,
        )
        assert state is not None
        return spikes.squeeze(0), state

    def extra_repr(self) -> str:
        d = self.dynamics
        reset = f"{d.reset}, detached" if d.detach_reset else d.reset
        more = {
            "reset_to": d.reset_to,
            "initial": d.initial,
            "fires_above": d.fires_above,
            "decay_input": d.decay_input,
        }
        said = "".join(f", {name}={value}" for name, value in more.items() if value)
        return f"num_steps={self.num_steps}, threshold={d.threshold}, reset={reset}, surrogate={d.surrogate}{said}"


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neuron with a fixed decay.

    Args:
        num_steps: number of time steps.
        decay: factor on the membrane per step, 0.25 as in the authors' code; SpikingJelly's `tau` is `1 / (1 - decay)`.
        settings: see `SpikingNeuron`.
    """

    def __init__(self, num_steps: int = 1, *, decay: float = 0.25, **settings: Unpack[NeuronSettings]) -> None:
        super().__init__(num_steps, **settings)
        check_number("decay", decay, instead=_DECAY)
        if not 0 <= decay <= 1:
            raise UserError(f"decay={decay!r}: must be in [0, 1]; for a time constant tau, write decay=1 - 1 / tau")
        self.decay = float(decay)

    def leak(self) -> float:
        return self.decay

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, decay={self.decay}"


_DECAY = "PLIF learns one decay per layer; one decay per channel is not supported"


class IF(SpikingNeuron):
    """Integrate-and-fire neuron: the membrane does not leak, its decay is 1."""

    def leak(self) -> float:
        return 1.0


class PLIF(SpikingNeuron):
    r"""LIF neuron that learns one decay for the whole layer (parametric LIF, Fang et al., ICCV 2021).

    The parameter is $w$ with $\lambda = \sigma(w)$, which keeps the decay in $(0, 1)$.

    Args:
        num_steps: number of time steps.
        decay: initial decay, in (0, 1).
        settings: see `SpikingNeuron`.
    """

    def __init__(self, num_steps: int = 1, *, decay: float = 0.5, **settings: Unpack[NeuronSettings]) -> None:
        super().__init__(num_steps, **settings)
        check_number("decay", decay, instead=_DECAY)
        if not 0 < decay < 1:
            raise UserError(f"decay={decay!r}: a learned decay must start between 0 and 1")
        self.decay_logit = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))

    def leak(self) -> Tensor:
        return self.decay_logit.sigmoid()


def make_neuron(neuron: NeuronFactory | None, num_steps: int) -> nn.Module:
    """Return the neuron that a factory makes; `LIF` is the factory if `neuron` is None.

    Raises:
        ValueError: `neuron` is not a factory, or it makes neurons of another library.
    """
    factory = LIF if neuron is None else neuron
    made = factory(num_steps) if callable(factory) and not isinstance(factory, nn.Module) else None
    if not isinstance(made, nn.Module):
        raise UserError(
            f"neuron={neuron!r}: must be callable with num_steps and return a module, "
            "e.g. LIF or functools.partial(LIF, decay=0.25)"
        )
    refuse_library_neurons(made)
    return made


NEURONS: dict[NeuronKind, type[SpikingNeuron]] = {"lif": LIF, "if": IF, "plif": PLIF}
