"""Run exported networks with software outside this package: nirtorch, onnxruntime, a loaded `torch.export` program.

Each `*_runner` is built once and can be called with any number of batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from shortback.choices import NIRImporter
from shortback.export.check import Recording
from shortback.export.nir_readers import NeuronStep, neuron_step

if TYPE_CHECKING:
    from nir import NIRGraph


def onnx_runner(file: Path | str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function that runs an ONNX graph in onnxruntime on the CPU and returns its outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: tuple(torch.from_numpy(value) for value in session.run(None, {"input": x.detach().cpu().numpy()}))


def program_runner(program: ExportedProgram) -> Callable[..., tuple[Tensor, ...]]:
    """A function that runs a `torch.export` program and returns its outputs."""
    module = program.module()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            outputs = module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run


def nir_runner(
    graph: NIRGraph, *, num_steps: int, dt: float, reader: NIRImporter = "any"
) -> Callable[[Tensor], Recording]:
    """A function that runs a NIR graph step by step in nirtorch, on the CPU.

    The function takes images `[N, C, H, W]`, given at every step, or a sequence `[T, N, C, H, W]`.

    Args:
        dt: seconds per step.
        reader: the library whose neurons to use; see `neuron_step`.

    Raises:
        ValueError: the graph has a neuron that the reader does not read.
    """
    import nir
    import nirtorch

    def neuron(node: Any) -> nn.Module:
        return _Leaky(neuron_step(node, reader=reader, dt=dt))

    mappings: Mapping[Any, Callable[[Any], nn.Module]] = {
        nir.LIF: neuron,
        nir.IF: neuron,
        nir.Affine: _affine,  # nirtorch's own omits the bias
        nir.Conv2d: _convolution,
        nir.Flatten: lambda node: nn.Flatten(),  # nirtorch's own flattens the batch too
    }
    with torch.random.fork_rng(devices=[]):  # layers are initialised before they get their weights
        executor = nirtorch.nir_to_torch(graph, dict(mappings))
    names = {name.replace(".", "_"): name for name in graph.nodes}
    spikes: dict[str, list[Tensor]] = {}
    for module_name, module in executor.named_modules():
        if isinstance(module, _Leaky):
            module.register_forward_hook(functools.partial(_keep, spikes.setdefault(names[module_name], [])))

    def run(x: Tensor) -> Recording:
        for steps in spikes.values():
            steps.clear()
        x, outputs, state = x.cpu(), [], None
        with torch.no_grad():
            for step in range(num_steps):
                output, state = executor(x if x.ndim == 4 else x[step], state)
                outputs.append(output)
        return Recording(torch.stack(outputs), {name: torch.stack(steps) for name, steps in spikes.items()})

    return run


def _keep(steps: list[Tensor], module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    steps.append(output[0])


class _Leaky(nn.Module):
    """A NIR neuron, leaky or not, that takes one Euler step per call and resets to 0."""

    def __init__(self, step: NeuronStep) -> None:
        super().__init__()
        self.leak, self.gain = float(np.float32(step.leak)), float(np.float32(step.gain))
        self.threshold, self.at_threshold = float(np.float32(step.threshold)), step.at_threshold

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = self.gain * x if state is None else self.leak * state + self.gain * x
        fired = v >= self.threshold if self.at_threshold else v > self.threshold
        return fired.to(x.dtype), torch.where(fired, 0.0, v)


def _affine(node: Any) -> nn.Linear:
    linear = nn.Linear(node.weight.shape[1], node.weight.shape[0])
    linear.weight.data, linear.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return linear


def _convolution(node: Any) -> nn.Conv2d:
    """Like nirtorch's own mapping, which does not accept sizes that are arrays, as a file has them."""
    channels, inputs, *kernel = node.weight.shape
    conv = nn.Conv2d(
        inputs,
        channels,
        (kernel[0], kernel[1]),
        stride=_sizes(node.stride),
        padding=node.padding if isinstance(node.padding, str) else _sizes(node.padding),
        dilation=_sizes(node.dilation),
    )
    assert conv.bias is not None
    conv.weight.data, conv.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return conv


def _sizes(values: Any) -> tuple[int, int]:
    height, width = (int(value) for value in values)
    return height, width
