"""Count the operations of layers and the spikes of neurons while a network runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortback.export.arguments import input_of

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Count:
    """Operations and spikes of a network, counted by hooks that are registered on construction.

    Attributes:
        images, batches: number of images and batches the network ran on; the caller adds them up.
        layers: sums by layer name, in the order of first calls.
        neurons: sums by neuron name.
        graded: names of neurons that returned anything but zeros and ones, such as membranes.
        not_counted: modules and functions that multiply and are not counted; see
            `shortback.export.operations.Operations`.
    """

    def __init__(self, network: nn.Module) -> None:
        self.images = self.batches = 0
        self.layers: dict[str, LayerSums] = {}
        self.neurons: dict[str, NeuronSums] = {}
        self.graded: set[str] = set()
        self.not_counted: list[str] = []
        self._hooks: list[Any] = []
        for name, module in network.named_modules():
            if is_counted(module):
                hook = functools.partial(self._layer, name)
                self._hooks.append(module.register_forward_hook(hook, with_kwargs=True))
            elif has_weights(module):
                self.not_counted.append(f"{name} ({type(module).__name__})")

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def note_spikes(self, name: str, spikes: Tensor) -> None:
        """Add the spikes of one call of a neuron."""
        self.neurons.setdefault(name, NeuronSums()).add(spikes)

    def _layer(self, name: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Tensor) -> None:
        x = input_of(module, args, kwargs)
        self.layers.setdefault(name, LayerSums()).add(module, x, output)


class LayerSums:
    """Sums of one layer over all batches.

    Attributes:
        dense, macs, acs: operations; see `shortback.export.operations.LayerOperations`.
        active, inputs: number of nonzero inputs, and of all inputs.
        maps: number of times the weights were applied, to an image or to the features of one position.
        spiking: whether all inputs were zeros and ones.
    """

    def __init__(self) -> None:
        self.dense = self.macs = self.acs = self.active = 0.0
        self.inputs = self.maps = 0
        self.spiking = True

    def add(self, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        effective, dense = row_operations(layer, x, output)
        operations = float(effective.sum())
        active = x != 0
        binary = bool((active == x).all())
        self.maps += len(effective) if isinstance(layer, _CONVOLUTIONS) else x.numel() // x.shape[-1]
        self.inputs += x.numel()
        self.active += float(active.sum())
        self.dense += dense * len(effective)
        self.acs += operations if binary else 0.0
        self.macs += 0.0 if binary else operations
        self.spiking &= binary


class NeuronSums:
    """Sums of one layer of neurons over all batches.

    Attributes:
        fired: sum of the returned values.
        count: number of these values.
    """

    def __init__(self) -> None:
        self.fired, self.count = 0.0, 0

    def add(self, spikes: Tensor) -> None:
        self.fired += float(spikes.sum(dtype=torch.float64))
        self.count += spikes.numel()


def is_counted(module: nn.Module) -> bool:
    """Whether operations of a module are counted: a convolution that pads with zeros, if at all, or `Linear`."""
    pads = isinstance(module, _CONVOLUTIONS) and module.padding_mode != "zeros" and any(_padding(module))
    return isinstance(module, (*_CONVOLUTIONS, nn.Linear)) and not pads


def has_weights(module: nn.Module) -> bool:
    """Whether a module, batch norms aside, has weights of its own (parameters of more than one axis)."""
    is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return not is_norm and any(p.ndim > 1 for p in module.parameters(recurse=False))


def row_operations(layer: nn.Module, x: Tensor, output: Tensor) -> tuple[Tensor, float]:
    """Operations of a convolution or `Linear` on its nonzero inputs, by row `[rows]`, and of one row on all inputs.

    Rows lie along the first axis; for a convolution along all axes before the channels, as in SpikingJelly's
    `[T, N, C, H, W]`.
    """
    if isinstance(layer, _CONVOLUTIONS):
        axes = len(layer.kernel_size)
        x = x.reshape(-1, *x.shape[-1 - axes :])
        by_pixel = (x != 0).unflatten(1, (layer.groups, -1)).sum(2).sum(1)  # [rows, H, W], over all channels
        reach, fan_out = _reach(layer, x.shape[2:], output.shape[-axes:]), layer.out_channels // layer.groups
        return (by_pixel * reach).flatten(1).sum(1) * fan_out, float(reach.sum()) * x.shape[1] * fan_out
    assert isinstance(layer, nn.Linear)
    inputs = x.reshape(len(x) if x.ndim > 1 else 1, -1)  # features of all positions of a row
    return (inputs != 0).sum(1) * layer.out_features, float(inputs.shape[1] * layer.out_features)


def _reach(conv: _Convolution, size: torch.Size, output_size: torch.Size) -> Tensor:
    """The number of windows that contain each pixel of the input, `[H, W]`."""
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(size) - 1]
    ones = torch.ones(1, 1, *output_size, device=conv.weight.device, dtype=torch.float64)
    kernel = torch.ones(1, 1, *conv.kernel_size, device=conv.weight.device, dtype=torch.float64)
    spread = transposed(ones, kernel, stride=conv.stride, dilation=conv.dilation)[0, 0]  # type: ignore[arg-type]
    padding = _padding(conv)
    beyond = [(0, max(0, length + 2 * before)) for length, before in zip(size, padding, strict=True)]
    room = F.pad(spread, [pad for pads in reversed(beyond) for pad in pads])
    return room[tuple(slice(before, before + length) for length, before in zip(size, padding, strict=True))]


def _padding(conv: _Convolution) -> list[int]:
    """Padding before the first pixel, by axis."""
    if conv.padding == "valid":
        return [0] * len(conv.kernel_size)
    if conv.padding == "same":
        return [d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    assert not isinstance(conv.padding, str)
    return list(conv.padding)
