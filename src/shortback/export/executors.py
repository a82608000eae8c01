"""Run what was exported by software that is not this package: nirtorch, onnxruntime, the loaded program.

What runs it is built once, and called with as many batches as there are.
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
    """What gives the outputs of an ONNX graph, by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: tuple(torch.from_numpy(value) for value in session.run(None, {"input": x.cpu().numpy()}))


def program_runner(program: ExportedProgram) -> Callable[..., tuple[Tensor, ...]]:
    """What gives the outputs of a `torch.export` program."""
    module = program.module()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            outputs = module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run


def nir_runner(
    graph: NIRGraph, *, num_steps: int, dt: float, reader: NIRImporter = "any"
) -> Callable[[Tensor], Recording]:
    """What steps through a NIR graph, by nirtorch, with images `[N, C, H, W]` at every step, or `[T, N, C, H, W]`.

    Args:
        dt: seconds a step.
        reader: whose neurons to use, see `neuron_step`.

    Raises:
        ValueError: a neuron that the reader does not read.
    """
    import nir
    import nirtorch

    def neuron(node: Any) -> nn.Module:
        return _Leaky(neuron_step(node, reader=reader, dt=dt))

    mappings: Mapping[Any, Callable[[Any], nn.Module]] = {
        nir.LIF: neuron,
        nir.IF: neuron,
        nir.Affine: _affine,  # nirtorch's own leaves the bias out
        nir.Conv2d: _convolution,
        nir.Flatten: lambda node: nn.Flatten(),  # nirtorch's own flattens the batch too
    }
    executor = nirtorch.nir_to_torch(graph, dict(mappings))
    names = {name.replace(".", "_"): name for name in graph.nodes}
    spikes: dict[str, list[Tensor]] = {}
    for module_name, module in executor.named_modules():
        if isinstance(module, _Leaky):
            module.register_forward_hook(functools.partial(_keep, spikes.setdefault(names[module_name], [])))

    def run(x: Tensor) -> Recording:
        for steps in spikes.values():
            steps.clear()
        outputs, state = [], None
        with torch.no_grad():
            for step in range(num_steps):
                output, state = executor(x if x.ndim == 4 else x[step], state)
                outputs.append(output)
        return Recording(torch.stack(outputs), {name: torch.stack(steps) for name, steps in spikes.items()})

    return run


def _keep(steps: list[Tensor], module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    steps.append(output[0])


class _Leaky(nn.Module):
    """A neuron of NIR by a step of Euler, leaky or not, which resets to 0."""

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
    """As nirtorch's own, which takes no arrays of a file for sizes."""
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
