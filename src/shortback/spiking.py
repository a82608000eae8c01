r"""The wrapper that owns the time steps of a spiking network, and `spikify`, which makes one from any ANN.

Inside a network every tensor is folded, `[T*N, ...]` time-major, so that all but the neurons are the plain
PyTorch modules. `SpikingNetwork` is where images come in and logits leave.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, fx, nn

from shortback.activations import is_activation, is_gate, refuse_functional
from shortback.neurons import LIF, SpikingNeuron, TimeModule
from shortback.ops import Memory

NeuronFactory = Callable[[int], nn.Module]
"""Makes a neuron for a number of steps, e.g. `LIF` or `functools.partial(LIF, decay=0.25)`."""

Readout = Literal["mean", "steps"]

log = logging.getLogger("shortback")


class SpikingNetwork(nn.Module):
    r"""A network on folded time, from images to logits.

    The logits are the mean over time of what the network returns, in float32 (float64 for float64 outputs). A
    linear map commutes with the mean, so with a linear readout this is $O = W\,\mathrm{mean}_t(s[t]) + b$: it
    never fires.

    A static image is the same at every step. What comes before the first neurons then runs once, and those
    neurons expand their input over time, wherever the data flow of `network` allows it: see `expands_at`.

    Args:
        network: a module `[T*N, C, H, W] -> [T*N, K]` whose neurons are `TimeModule`s. With neurons of
            another kind, which must know `T` by themselves, images are repeated at the input.
        num_steps: number of time steps `T`.
        readout: see the attribute.

    Attributes:
        readout: `"mean"` for logits `[N, K]`, `"steps"` for the outputs of every step, `[T, N, K]`.
        memory: what layers keep for the backward pass, `"fast"`, `"balanced"` (as given) or `"small"`: see
            `shortback.ops.layer`.

    Raises:
        ValueError: `num_steps` below 1, or an unknown readout.
    """

    def __init__(self, network: nn.Module, *, num_steps: int, readout: Readout = "mean") -> None:
        super().__init__()
        self.network = network
        self.training = network.training
        self.num_steps = num_steps
        self.readout = readout
        self.memory = "balanced"
        for module in network.modules():
            if isinstance(module, TimeModule):
                module.static_input = False
        self._first_neurons: tuple[str, ...] = ()
        try:
            self._first_neurons = _find_first_neurons(network)
        except Exception as error:  # a symbolic trace runs the network's own code, which may raise anything
            log.info("%s repeats static images at its input: %s", type(network).__name__, error)

    @property
    def num_steps(self) -> int:
        """Number of time steps `T`; setting it sets that of every `TimeModule` inside."""
        return self._num_steps

    @num_steps.setter
    def num_steps(self, value: int) -> None:
        if value < 1:
            raise ValueError(f"num_steps={value}: must be 1 or more")
        self._num_steps = value
        for module in self.modules():
            if isinstance(module, TimeModule):
                module.num_steps = value

    @property
    def memory(self) -> Memory:
        """What the layers keep for the backward pass; setting it sets that of every neuron inside."""
        return self._memory

    @memory.setter
    def memory(self, value: Memory) -> None:
        if value not in get_args(Memory):
            raise ValueError(f"memory={value!r}: must be one of {', '.join(get_args(Memory))}")
        self._memory: Memory = value
        for module in self.modules():
            if isinstance(module, SpikingNeuron):
                module.memory = value

    @property
    def readout(self) -> Readout:
        return self._readout

    @readout.setter
    def readout(self, value: Readout) -> None:
        if value not in get_args(Readout):
            raise ValueError(f"readout={value!r}: must be one of {', '.join(get_args(Readout))}")
        self._readout: Readout = value

    @property
    def expands_at(self) -> Literal["input", "neuron"]:
        """Where a static image is expanded over time: at the first neurons, or already at the input."""
        return "neuron" if self._first_neurons else "input"

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images.

        Args:
            x: `[N, C, H, W]`, the same at every step, or a sequence `[T, N, C, H, W]`.

        Returns:
            `[N, K]`, or `[T, N, K]` where `readout` is `"steps"`.

        Raises:
            ValueError: an input of another shape, or an output that is not one tensor.
        """
        if x.ndim not in (4, 5):
            raise ValueError(f"input of shape {list(x.shape)}: must be [N, C, H, W] or [T, N, C, H, W]")
        static = x.ndim == 4
        if not static and x.shape[0] != self.num_steps:
            raise ValueError(
                f"sequence of shape {list(x.shape)} for num_steps={self.num_steps}: must be "
                f"[T, N, C, H, W] with T={self.num_steps}, or set num_steps of the model"
            )
        for name in self._first_neurons:
            # Without a look at what it was: torch.compile would guard on that, and compile once more.
            self.network.get_submodule(name).static_input = static  # type: ignore[assignment]
        if not static:
            x = x.flatten(0, 1)
        elif not self._first_neurons:
            x = torch.cat([x] * self.num_steps)  # keeps channels-last, as expand().flatten() does not
        output = self.network(x)
        if not isinstance(output, Tensor):
            kind = f"{type(self.network).__name__} returned {type(output).__name__}"
            raise ValueError(f"{kind}: must be one tensor of logits, [T*N, K]; turn other outputs off")
        steps = output.unflatten(0, (self.num_steps, -1)).to(torch.promote_types(output.dtype, torch.float32))
        return steps if self.readout == "steps" else steps.mean(0)

    def extra_repr(self) -> str:
        return f"num_steps={self.num_steps}, expands_at={self.expands_at}, readout={self.readout}"


def spikify(ann: nn.Module, *, num_steps: int, neuron: NeuronFactory | None = None) -> SpikingNetwork:
    """Make a network spiking by putting a neuron in the place of every ReLU-like activation.

    Replaced is every module whose class, or a class it derives from, is called (whatever its package, its
    case, its underscores and a final `Me`, `Jit` or `Activation`) ReLU, ReLU6, LeakyReLU, PReLU, RReLU, ELU,
    CELU, SELU, GELU, GELUTanh, QuickGELU, SiLU, Swish, Mish, Hardswish, HSwish, HardMish or Softplus: those
    of `torch.nn` and of timm, in-place ones too, and those within a layer such as timm's `BatchNormAct2d`.
    One activation used in several places becomes one neuron used there. All else stays: gates (Sigmoid,
    Hardsigmoid, Softmax), Tanh, Hardtanh, dropout.

    The same functions called as functions (`F.relu`, `x.relu()`, ...) cannot be replaced. They are looked for
    in the source of `forward` and of what it calls, and refused; a name imported within a function is not
    followed.

    Args:
        ann: the network, `[N, C, H, W] -> [N, K]`. It is left as it is: the result is built on a deep copy.
        num_steps: number of time steps `T`.
        neuron: called with `num_steps` for every activation; `LIF` where not given.

    Raises:
        ValueError: activations called as functions (the message says where), no activation at all, a compiled
            network, or something else than a factory for `neuron`.
    """
    if hasattr(ann, "_orig_mod"):
        raise ValueError("spikify() takes the network before torch.compile: pass it as it was, then compile the result")
    refuse_functional(ann)
    network = copy.deepcopy(ann)
    device = next((p.device for p in network.parameters()), None)
    neurons: dict[nn.Module, nn.Module] = {}
    for parent in list(network.modules()):
        if is_gate(parent):
            continue
        for name, child in list(parent._modules.items()):
            if child is not None and is_activation(child):
                if child not in neurons:
                    neurons[child] = make_neuron(neuron, num_steps).to(device).train(child.training)
                parent.register_module(name, neurons[child])
        if isinstance(parent, nn.TransformerEncoderLayer):
            parent.activation_relu_or_gelu = 0  # or its fused inference path would still apply a ReLU
    if not neurons:
        raise ValueError(
            f"{type(ann).__name__} holds no activation to replace: spikify() needs modules such as nn.ReLU()"
        )
    return SpikingNetwork(network, num_steps=num_steps)


def make_neuron(neuron: NeuronFactory | None, num_steps: int) -> nn.Module:
    """A neuron from a factory, `LIF` where it is None.

    Raises:
        ValueError: `neuron` is not a factory.
    """
    factory = LIF if neuron is None else neuron
    made = factory(num_steps) if callable(factory) and not isinstance(factory, nn.Module) else None
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"neuron={neuron!r}: must be callable with num_steps and return a module, "
            "e.g. LIF or functools.partial(LIF, decay=0.25)"
        )
    return made


class _Tracer(fx.Tracer):
    """Traces down to `torch.nn` modules and neurons, and changes no buffer, such as a norm's counter."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, TimeModule):
            return True
        holds_time = any(isinstance(child, TimeModule) for child in m.modules())
        return not holds_time and super().is_leaf_module(m, module_qualified_name)


def _find_first_neurons(network: nn.Module) -> tuple[str, ...]:
    """Names of the neurons at which a static image can be expanded over time.

    A value is static where it depends on the input but on no neuron. Every way from a static value to one
    that is not must lead into a neuron, and no neuron may be called with both.

    Raises:
        ValueError: it cannot be expanded there, and why.
        Exception: whatever a symbolic trace of the network raises.
    """
    # The copy shares the weights, and takes what forward assigns to attributes.
    weights = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    shell = copy.deepcopy(network, weights)
    _, *others = inspect.signature(network.forward).parameters.values()
    defaults = {p.name: p.default for p in others if p.default is not p.empty}
    graph = _Tracer().trace(shell, defaults)

    static: set[fx.Node] = set()
    timed: set[fx.Node] = set()
    is_first: dict[str, bool] = {}
    for node in graph.nodes:
        inputs = set(node.all_input_nodes)
        if node.op == "placeholder":
            static.add(node)
        elif node.op == "call_module" and isinstance(shell.get_submodule(node.target), TimeModule):
            first = inputs <= static
            if is_first.setdefault(node.target, first) != first:
                raise ValueError(f"neuron {node.target} is called both before and after other neurons")
            timed.add(node)
        elif inputs & timed:
            if inputs & static:
                raise ValueError(f"{node} joins a value from before the first neurons with one from after them")
            timed.add(node)
        elif inputs & static:
            static.add(node)
        if node.op == "output" and node not in timed:
            raise ValueError("its output comes from no neuron")
    return tuple(name for name, first in is_first.items() if first)
