"""Run a network frame by frame, passing its state from each call to the next."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from shortback.copies import shared_copy
from shortback.errors import UserError
from shortback.export.accepted import check_network, refuse_batch_statistics
from shortback.inspection.calls import is_known_neuron
from shortback.models.norms import TemporalEffectiveNorm
from shortback.neurons import Expand, SpikingNeuron, TimeModule
from shortback.ops import Dynamics
from shortback.spiking import SpikingNetwork
from shortback.spiking.containers import replace_modules
from shortback.spiking.static_input import is_foreign

State = dict[str, Tensor]
"""The membrane `[N, ...]` of each neuron call, such as `layer1.0.relu` and `layer1.0.relu:2` for its second call, and,
under `:steps` and `:sum`, the number of frames so far and the sum of their outputs `[N, K]`."""

_STEPS, _SUM = ":steps", ":sum"


def stream(model: SpikingNetwork) -> Stream:
    """Turn a network into a function `y, state = streamed(frame, state)` of one frame; see `Stream`.

    Raises:
        ValueError: the network is no `SpikingNetwork`, or has modules whose single step is unknown or norms without
            running statistics; the message names one of them.
    """
    check_network(model, "stream()")
    return Stream(model)


class Stream(nn.Module):
    """A network that runs frame by frame, as for a live sensor; it shares the weights of `model`.

    After as many frames as `model` has steps, the spikes have been bit for bit those of `model` in `eval()` on the same
    sequence (or on the same static image). The logits are equal too, except for their last bits where the processor
    rounds a product of N rows differently from one of T*N rows, or where more than 16 steps are summed in another
    order. The stream accepts any number of frames (with `norm="tebn"`, which has learned a factor for each step, up to
    `num_steps`); start a new sequence with `state=None`.

    Attributes:
        num_steps: number of steps that the network was trained with.
        readout: as in `model`.

    Raises:
        ValueError: see `stream`.
    """

    def __init__(self, model: SpikingNetwork) -> None:
        super().__init__()
        self.num_steps, self.readout = model.num_steps, model.readout
        self._step = _Step()
        self.network = _streamed(shared_copy(model.network), self._step)
        self.network.eval()
        norms = [module for module in self.network.modules() if isinstance(module, _EffectiveNorm)]
        self._most_steps = min((len(norm.by_step) for norm in norms), default=None)

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run one step.

        Args:
            frame: `[N, C, H, W]`.
            state: the state returned by the previous step; None at the beginning.

        Returns:
            The mean of the outputs so far, `[N, K]` (with `readout="steps"` the output of this step), and the new
            state. The given state is not modified.

        Raises:
            ValueError: the frame has another shape, the state is from another batch size or network, or
                `norm="tebn"` has no factor for this step.
        """
        if frame.ndim != 4:
            raise UserError(
                f"frame of shape {list(frame.shape)}: one frame is [N, C, H, W]; a sequence goes frame by frame"
            )
        if state is not None:
            self._check(frame, state)
        with self._step.on(state, frame):
            output = self.network(frame)
            output = output.to(torch.promote_types(output.dtype, torch.float32))
            after = self._step.after
        if state is None:
            after[_STEPS], after[_SUM] = torch.ones((), dtype=torch.int64, device=frame.device), output
        else:
            after[_STEPS], after[_SUM] = state[_STEPS] + 1, state[_SUM] + output
        return (output if self.readout == "steps" else after[_SUM] / after[_STEPS]), after

    def initial_state(self, frame: Tensor) -> State:
        """The state before the first frame, for callers that cannot pass None, as with an exported program.

        Args:
            frame: a frame of the right shape; its values do not matter.
        """
        with torch.no_grad():
            _, after = self(frame)
        begin = {key: torch.zeros_like(value) for key, value in after.items()}
        for key, dynamics in self._step.dynamics.items():
            begin[key].fill_(dynamics.initial)
        return begin

    def train(self, mode: bool = True) -> Stream:
        """Ignore `mode` and stay in `eval()`: a stream is for inference."""
        return super().train(False)

    def _check(self, frame: Tensor, state: State) -> None:
        total = state.get(_SUM) if isinstance(state, dict) else None
        if total is None or (self._step.keys and set(state) != {*self._step.keys, _STEPS, _SUM}):
            raise UserError(
                "state: is not one of this network; pass the state that it returned, or None at the beginning"
            )
        if total.shape[0] != frame.shape[0]:
            raise UserError(
                f"state of a batch of {total.shape[0]} for frames of a batch of {frame.shape[0]}: start again with "
                "state=None, or keep the batch size"
            )
        if self._most_steps is None or torch.compiler.is_compiling():  # while compiling, the state has no values
            return
        if int(state[_STEPS]) >= self._most_steps:
            raise UserError(
                f"step {int(state[_STEPS]) + 1}: norm='tebn' has learned a factor for each of {self._most_steps} steps "
                "and none for more: start again with state=None, or train with norm='tdbn', which has no such limit"
            )


class _Step:
    """The state that a running step reads and writes, as a context.

    Attributes:
        before: the state at the start of the step.
        after: the state at its end.
        dynamics: dynamics of the neuron of each membrane, by key of the state.
        keys: keys of all membranes; empty until a step has been run.
    """

    def __init__(self) -> None:
        self.before: State | None = None
        self.after: State = {}
        self.dynamics: dict[str, Dynamics] = {}
        self.keys: frozenset[str] = frozenset()
        self._calls: Counter[str] = Counter()
        self._device: torch.device | None = None

    def on(self, state: State | None, frame: Tensor) -> _Step:
        self.before, self.after, self._device = state, {}, frame.device
        self._calls.clear()
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.keys = frozenset(self.dynamics)
        self.before, self.after = None, {}

    def number(self) -> Tensor:
        """The number of steps before this one."""
        return torch.zeros((), dtype=torch.int64, device=self._device) if self.before is None else self.before[_STEPS]

    def fire(self, name: str, neuron: SpikingNeuron, x: Tensor) -> Tensor:
        self._calls[name] += 1
        count = self._calls[name]
        key = name if count == 1 else f"{name}:{count}"
        self.dynamics[key] = neuron.dynamics
        spikes, self.after[key] = neuron.step(x, None if self.before is None else self.before[key])
        return spikes


class _Neuron(nn.Module):
    """Runs one step of a neuron, with a state for each of its calls."""

    def __init__(self, neuron: SpikingNeuron, name: str, step: _Step) -> None:
        super().__init__()
        self.neuron, self.name, self.step = neuron, name, step

    def forward(self, x: Tensor) -> Tensor:
        return self.step.fire(self.name, self.neuron, x)


class _EffectiveNorm(nn.Module):
    """Runs one step of TEBN, with the factor of that step."""

    def __init__(self, norm: TemporalEffectiveNorm, step: _Step) -> None:
        super().__init__()
        self.norm, self.by_step, self.step = norm.norm, norm.by_step, step

    def forward(self, x: Tensor) -> Tensor:
        factor = self.by_step.index_select(0, self.step.number().view(1))
        return self.norm(x) * factor.to(x.dtype)


def _streamed(network: nn.Module, step: _Step) -> nn.Module:
    """Replace every module that handles time by one for a single step; a module used twice gets one replacement."""
    refuse_batch_statistics(network, "stream()")
    made: dict[nn.Module, nn.Module] = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, SpikingNeuron):
            if type(module).forward is not SpikingNeuron.forward and type(module).step is SpikingNeuron.step:
                raise UserError(f"stream(): {name} is a {type(module).__name__} with a forward of its own, but no step")
            made[module] = _Neuron(module, name, step)
        elif isinstance(module, TemporalEffectiveNorm):
            made[module] = _EffectiveNorm(module, step)
        elif isinstance(module, Expand):
            made[module] = nn.Identity()
        elif is_known_neuron(module):
            raise UserError(
                f"stream(): {name} is a {type(module).__name__}, which keeps its own state: call its network frame by "
                "frame as its library does, or use neurons of shortback"
            )
        elif isinstance(module, TimeModule) or is_foreign(module):
            raise UserError(f"stream(): {name} is a {type(module).__name__}, and what it does in one step is unknown")
    if not any(isinstance(replacement, _Neuron) for replacement in made.values()):
        raise UserError("stream(): the network has no neuron of shortback, so nothing in it has a state")
    replace_modules(network, made)
    return made.get(network, network)
