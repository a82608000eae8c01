r"""NIR, the exchange format of neuromorphic hardware (Pedersen et al., Nature Communications 2024).

Its leaky neuron is $\tau \dot v = (v_\mathrm{leak} - v) + r I$, stepped by Euler with $\Delta t$. With $\tau = \Delta t
/ (1 - \lambda)$ and $r = 1 / (1 - \lambda)$ that is $v \leftarrow \lambda v + I$, the membrane of `shortback.neurons`.
NIR fires *above* the threshold, so what fires *at* it has the next float32 below. An addition is several edges into
whatever takes the sum.
"""

from __future__ import annotations

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
from shortback.export.onnx import need_extra
from shortback.export.program import check_sample, first_line
from shortback.inspection.pointwise import Subsample
from shortback.models.norms import TemporalEffectiveNorm
from shortback.neurons import SpikingNeuron
from shortback.spiking import SpikingNetwork
from shortback.spiking.static_input import trace

if TYPE_CHECKING:
    from nir import NIRGraph


def to_nir(
    model: SpikingNetwork, sample: Tensor, *, importer: NIRImporter = "any", dt: float | None = None
) -> NIRGraph:
    """The network as a NIR graph, from frames `[C, H, W]` a step to the output of that step, `[K]`.

    Batch norms are folded in float64. How long a sequence is, what a step lasts and that logits are the mean of the
    outputs over time is in `graph.metadata`. `nir.write(file, graph)` writes it, and `shortback.export.write` checks it
    too.

    Args:
        sample: `[N, C, H, W]` or `[T, N, C, H, W]`: NIR knows the sizes of all values.
        importer: who will read it, as they want different things, and it may then be wrong for others. `"snntorch"`
            reads an `IF` as a leaky neuron, so it gets an `LIF` that does not leak in float32. `"spikingjelly"` fires
            at the threshold too, and reads no neuron that forgets at once. `"norse"` takes every `r` for 1, so the
            thresholds are scaled instead, and has no average pooling, which is written as a convolution.
        dt: seconds a step; 1e-4 if not given, and for `"norse"` 1e-3, which its `from_nir` takes if it is not told.

    Raises:
        ValueError: the extra `nir` is not installed; something that NIR or the importer lacks, with the module and what
            to use; a `dt` that the importer does not heed.
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
    """Seconds a step."""
    reader, usual = READERS.get(importer), usual_dt(importer)
    if dt is not None and dt != usual and reader is not None and reader.dt_is_fixed:
        raise UserError(f"to_nir(): dt={dt:g}: {reader.name} reads every file with dt={usual:g}; leave dt out")
    return usual if dt is None else dt


class _Walk(fx.Interpreter):
    """Runs the network on a sample, for the shapes, and builds the nodes and edges of what it calls."""

    def __init__(self, model: SpikingNetwork, builder: Builder) -> None:
        for module in model.network.modules():
            if isinstance(module, SpikingNeuron):
                module.backend = "reference"
        try:
            shell, graph = trace(model.network, leaves=(Subsample,))
        except Exception as error:  # whatever the network's own code raises at a symbolic value
            what = f"{type(model.network).__name__} cannot be written as a graph"
            raise UserError(f"{what}, as its code depends on values: {first_line(error)}") from error
        super().__init__(fx.GraphModule(shell, graph))
        self.image = next(iter(graph.nodes))
        self.builder, self.num_steps = builder, model.num_steps
        self._values: dict[fx.Node, Value] = {}
        self._calls: dict[str, int] = {}

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
        except UserError as error:  # to which fx has added lines about its graph
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
        """The nodes and edges of a node of the graph."""
        if n.op == "placeholder":
            if n is self.image:
                self._values[n] = self.builder.input(self._shape_of_input)
        elif n.op == "output":
            self._output = self._value(n, n.args[0])
        elif n.op == "call_module":
            assert isinstance(n.target, str)
            self._values[n] = self._module(n, self.fetch_attr(n.target), result)
        elif n.op in ("call_function", "call_method"):
            self._values[n] = self._operation(n, result)

    def _value(self, node: fx.Node, argument: object) -> Value:
        if not isinstance(argument, fx.Node) or argument not in self._values:
            _refuse(str(node), f"it takes {argument}, which comes from no input")
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
            case nn.Identity() | nn.Dropout() | nn.Dropout2d():
                return x
            case TemporalEffectiveNorm():
                _refuse(name, "NIR has no factor that differs from step to step; train with norm=batch or tdbn")
        if type(module).__name__ == "Expand":
            return x
        _refuse(name, f"NIR has no {type(module).__name__}; what it has are {', '.join(_KNOWN)}")

    def _operation(self, node: fx.Node, result: object) -> Value:
        """A function or a method of a tensor."""
        name = self._name(str(node))
        match called(node):
            case "add", (a, b):
                return self.builder.add(name, self._value(node, a), self._value(node, b))
            case "flatten", (x,):
                return self.builder.flatten(name, self._value(node, x), _shape(name, result))
            case "average", (x,):
                return self.builder.adaptive(name, self._value(node, x), _shape(name, result))
            case "same", (x,):
                return self._value(node, x)
        what = getattr(node.target, "__name__", node.target)
        where = node.stack_trace.strip().splitlines()[-1].strip() if node.stack_trace else str(node)
        _refuse(where, f"NIR has no {what}; what can be written are additions, flatten and {', '.join(_KNOWN)}")

    def _name(self, name: str) -> str:
        """A name a call: the second one of a module is another node."""
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
        _refuse(name, f"it returns {type(result).__name__}, and NIR has one value an edge")
    return tuple(result.shape[1:])


def _refuse(where: str, reason: str) -> NoReturn:
    raise UserError(f"to_nir(): {where}: {reason}")
