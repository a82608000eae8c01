r"""Export to NIR, the exchange format of neuromorphic hardware (Pedersen et al., Nature Communications 2024).

NIR's leaky neuron is $\tau \dot v = (v_\mathrm{leak} - v) + r I$, integrated with Euler steps of $\Delta t$. With
$\tau = \Delta t / (1 - \lambda)$ and $r = 1 / (1 - \lambda)$ a step is $v \leftarrow \lambda v + I$, the membrane of
`shortback.neurons`. A NIR neuron fires *above* its threshold, so a neuron that fires *at* its threshold is written with
the next float32 below. An addition is written as several edges into the node that takes the sum.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, fx, nn

from shortback.choices import NIRImporter, check_choice
from shortback.errors import UserError
from shortback.export.arguments import input_of
from shortback.export.folding import affine, fold_norms
from shortback.export.nir_calls import called
from shortback.export.nir_nodes import Builder, Value
from shortback.export.nir_readers import READERS, check_order, usual_dt
from shortback.export.program import check_sample, first_line
from shortback.extras import need_extra
from shortback.inspection.pointwise import Subsample
from shortback.models.norms import TemporalEffectiveNorm
from shortback.neurons import Expand, SpikingNeuron
from shortback.spiking import SpikingNetwork
from shortback.spiking.static_input import trace

if TYPE_CHECKING:
    from nir import NIRGraph


def to_nir(
    model: SpikingNetwork, sample: Tensor, *, importer: NIRImporter = "any", dt: float | None = None
) -> NIRGraph:
    """Convert a network to a NIR graph that takes one frame `[C, H, W]` per step and gives that step's output `[K]`.

    Batch norms are folded in float64. `graph.metadata` records the number of steps, the duration of a step, and whether
    logits are the mean of the outputs over the steps. `nir.write(file, graph)` writes the graph;
    `shortback.export.write` also checks it.

    Args:
        sample: `[N, C, H, W]` or `[T, N, C, H, W]`, from which the sizes of all values in the graph are taken.
        importer: the library that will read the graph; libraries differ, so the graph may then be wrong for others.
            `"snntorch"` reads an `IF` as a leaky neuron, so it gets an `LIF` that does not leak in float32.
            `"spikingjelly"` also fires at the threshold, and reads no neuron with a decay of 0. `"norse"` takes every
            `r` as 1, so thresholds are scaled instead, and has no average pooling, which is written as a convolution.
        dt: seconds per step; 1e-4 if not given, and for `"norse"` 1e-3, the default of its `from_nir`.

    Raises:
        ValueError: the extra `nir` is not installed; NIR or the importer lacks something, with the module and what to
            use instead; `dt` is not above 0, or the importer ignores it.
    """
    need_extra("nir", "nir", "nirtorch")
    check_choice("importer", importer, NIRImporter)
    check_sample(model, sample)
    dt = _step_for(importer, dt)
    folded, _ = fold_norms(model)
    folded.to("cpu")
    builder = Builder(importer=importer, dt=dt)
    with torch.no_grad():
        output = _Walk(folded, builder).run(sample.to("cpu"))
    graph = builder.finish(output)
    if importer == "norse":
        check_order(graph.edges, start="input")
    graph.metadata = {
        "num_steps": model.num_steps,
        "dt": dt,
        "input": "the same frame at every step" if sample.ndim == 4 else "a sequence of frames",
        "readout": "logits are the mean of the outputs over the steps" if model.readout == "mean" else "by step",
        "written_by": "shortback",
        "written_for": importer,
    }
    return graph


def _step_for(importer: NIRImporter, dt: float | None) -> float:
    """Seconds per step: `dt`, or the importer's usual one."""
    reader, usual = READERS.get(importer), usual_dt(importer)
    if dt is not None and not 0 < dt < math.inf:
        raise UserError(f"to_nir(): dt={dt:g}: seconds per step must be above 0; leave dt out for {usual:g}")
    if dt is not None and dt != usual and reader is not None and reader.dt_is_fixed:
        raise UserError(f"to_nir(): dt={dt:g}: {reader.name} reads every file with dt={usual:g}; leave dt out")
    return usual if dt is None else dt


class _Walk(fx.Interpreter):
    """Runs the network on a sample to learn the shapes, and adds the nodes and edges of every call to the builder."""

    def __init__(self, model: SpikingNetwork, builder: Builder) -> None:
        for module in model.network.modules():
            if isinstance(module, SpikingNeuron):
                module.backend = "reference"
        try:
            shell, graph = trace(model.network, leaves=(Subsample,))
        except Exception as error:  # the network's own code may raise anything when it is given a symbolic value
            what = f"{type(model.network).__name__} cannot be written as a graph"
            raise UserError(f"{what}, as its code depends on values: {first_line(error)}") from error
        super().__init__(fx.GraphModule(shell, graph))
        self.image = next(iter(graph.nodes))
        self.builder, self.num_steps = builder, model.num_steps
        self._values: dict[fx.Node, Value] = {}
        self._calls: dict[str, int] = {}
        self._spelled: dict[str, str] = {}

    def run(self, sample: Tensor) -> Value:  # type: ignore[override]
        """The value that the network returns."""
        frame = sample[0] if sample.ndim == 5 else sample
        self._shape_of_input = tuple(frame.shape[1:])
        self._output: Value | None = None
        for module in self.module.modules():
            if isinstance(module, SpikingNeuron):
                module.num_steps, module.static_input = 1, False
        self._refusal = ""
        try:
            super().run(frame[:1])
        except UserError as error:  # fx has added lines about its graph to the message
            raise UserError(self._refusal or str(error)) from None
        assert self._output is not None
        return self._output

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        try:
            self._write(n, result)
        except UserError as error:
            self._refusal = str(error)
            raise
        return result

    def _write(self, n: fx.Node, result: object) -> None:
        """Add the NIR nodes and edges of one node of the fx graph."""
        if n.op == "placeholder":
            if n is self.image:
                self._values[n] = self.builder.input(self._shape_of_input)
        elif n.op == "output":
            self._output = self._value(n, n.args[0])
        elif n.op == "call_module":
            assert isinstance(n.target, str)
            self._values[n] = self._module(n, self.fetch_attr(n.target), result)
        elif n.op in ("call_function", "call_method") and any(node in self._values for node in n.all_input_nodes):
            self._values[n] = self._operation(n, result)  # not of what the network computes from other arguments

    def _value(self, node: fx.Node, argument: object) -> Value:
        if not isinstance(argument, fx.Node) or argument not in self._values:
            _refuse(str(node), f"it takes {argument}, which does not come from the input")
        return self._values[argument]

    def _module(self, node: fx.Node, module: nn.Module, result: object) -> Value:
        name = self._name(str(node.target))
        x = self._value(node, input_of(module, node.args, node.kwargs))
        shape = _shape(name, result)
        match module:
            case SpikingNeuron():
                return self.builder.neuron(name, x, module)
            case nn.Conv2d():
                return self.builder.convolution(name, x, module, shape)
            case nn.BatchNorm2d() if module.running_mean is not None:
                return self.builder.scaled(name, x, *affine(module), shape)
            case nn.BatchNorm2d():
                _refuse(name, "it normalises by the statistics of its batch; train with track_running_stats=True")
            case nn.Linear():
                return self.builder.linear(name, x, module, shape)
            case Subsample():
                return self.builder.subsample(name, x, module.stride, shape)
            case nn.MaxPool2d():
                return self.builder.max_pool(name, x, module, shape)
            case nn.AvgPool2d():
                return self.builder.average(name, x, module, shape)
            case nn.AdaptiveAvgPool2d():
                return self.builder.adaptive(name, x, shape)
            case nn.Flatten():
                return self.builder.flatten(name, x, shape)
            case nn.Identity() | nn.Dropout() | nn.Dropout2d() | Expand():
                return x
            case TemporalEffectiveNorm():
                _refuse(name, "NIR has no factor that differs from step to step; train with norm=batch or tdbn")
        _refuse(name, f"NIR has no {type(module).__name__}; it has {', '.join(_KNOWN)}")

    def _operation(self, node: fx.Node, result: object) -> Value:
        """The value of a call of a function or of a tensor method."""
        name = self._name(str(node))
        match called(node):
            case "add", (a, b):
                total = self.builder.add(name, self._value(node, a), self._value(node, b))
                if node.target == "add_":  # the tensor itself has changed, whoever uses it next
                    self._values[a] = total
                return total
            case "flatten", (x,):
                return self.builder.flatten(name, self._value(node, x), _shape(name, result))
            case "average", (x,):
                return self.builder.adaptive(name, self._value(node, x), _shape(name, result))
            case "same", (x,):
                return self._value(node, x)
        what = getattr(node.target, "__name__", node.target)
        where = node.stack_trace.strip().splitlines()[-1].strip() if node.stack_trace else str(node)
        _refuse(where, f"NIR has no {what}; it has additions, flatten and {', '.join(_KNOWN)}")

    def _name(self, name: str) -> str:
        """A unique name for each call: a second call of a module is a node of its own."""
        spelled = name.replace(".", "_")  # by nirtorch
        if spelled in ("input", "output") or self._spelled.setdefault(spelled, name) != name:
            other = self._spelled.get(spelled, f"NIR's own {spelled}")
            _refuse(name, f"has the name of {other} in NIR, where a dot is an underscore: rename the module")
        self._calls[name] = self._calls.get(name, 0) + 1
        return name if self._calls[name] == 1 else f"{name}:{self._calls[name]}"


_KNOWN = (
    "Conv2d",
    "BatchNorm2d",
    "Linear",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "MaxPool2d of spikes",
    "Flatten",
    "neurons",
)


def _shape(name: str, result: object) -> tuple[int, ...]:
    if not isinstance(result, Tensor):
        _refuse(name, f"it returns a {type(result).__name__}, and an edge in NIR carries one tensor")
    return tuple(result.shape[1:])


def _refuse(where: str, reason: str) -> NoReturn:
    raise UserError(f"to_nir(): {where}: {reason}")
