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

from shortback.export.check import Recording

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


def nir_runner(graph: NIRGraph, *, num_steps: int, dt: float) -> Callable[[Tensor], Recording]:
    """What steps through a NIR graph, by nirtorch, with images `[N, C, H, W]` at every step, or `[T, N, C, H, W]`."""
    import nir
    import nirtorch

    mappings: Mapping[Any, Callable[[Any], nn.Module]] = {
        nir.LIF: lambda node: _Leaky(1 - dt / _one(node.tau), _one(node.r) * dt / _one(node.tau), node),
        nir.IF: lambda node: _Leaky(1.0, _one(node.r) * dt, node),
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
    """NIR's neuron, leaky or not, by a step of Euler: `v <- a v + b x`; it fires above the threshold and resets."""

    def __init__(self, a: float, b: float, node: Any) -> None:
        super().__init__()
        self.a, self.b = float(np.float32(a)), float(np.float32(b))
        self.threshold, self.reset = torch.from_numpy(node.v_threshold), torch.from_numpy(node.v_reset)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = self.b * x if state is None else self.a * state + self.b * x
        fired = v > self.threshold
        return fired.to(x.dtype), torch.where(fired, self.reset, v)


def _one(values: np.ndarray) -> float:
    return float(values.flat[0])


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
