"""Build the nodes and edges of a NIR graph, with one method for each kind of module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.neurons import SpikingNeuron

if TYPE_CHECKING:
    from nir import NIRGraph


@dataclass(frozen=True)
class Value:
    """A value passed between modules: the sum of the outputs of some nodes.

    Attributes:
        nodes: names of the nodes, in the order of the additions.
        shape: shape without time and batch.
        spikes: whether all values are zeros and ones.
        stride: stride of a subsampling that is still to be applied, if possible by the next 1x1 convolution.
    """

    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    spikes: bool = False
    stride: int = 1


class Builder:
    """Collects the nodes and edges of a graph.

    Args:
        importer, dt: as for `to_nir`.
    """

    def __init__(self, *, importer: str, dt: float) -> None:
        self.importer, self.dt = importer, dt
        self.nodes: dict[str, object] = {}
        self.edges: list[tuple[str, str]] = []

    def finish(self, output: Value) -> NIRGraph:
        import nir

        self._add("output", nir.Output({"output": np.array(output.shape)}), output)
        return nir.NIRGraph(self.nodes, self.edges, {})  # type: ignore[arg-type]

    def input(self, shape: tuple[int, ...]) -> Value:
        import nir

        self.nodes["input"] = nir.Input({"input": np.array(shape)})
        return Value(("input",), shape)

    def add(self, name: str, a: Value, b: Value) -> Value:
        twice = set(a.nodes) & set(b.nodes)
        if twice:
            raise UserError(
                f"to_nir(): {name}: adds the output of {', '.join(sorted(twice))} twice, and NIR has each edge once: "
                "put a module, such as a convolution, into one of the two paths"
            )
        a, b = self._whole(name, a), self._whole(name, b)
        if a.shape != b.shape:
            raise UserError(f"to_nir(): {name}: adds {a.shape} and {b.shape}, and NIR adds values of equal shape only")
        return Value(a.nodes + b.nodes, a.shape)

    def neuron(self, name: str, x: Value, neuron: SpikingNeuron) -> Value:
        import nir

        dynamics, decay = neuron.dynamics, float(neuron.leak())
        wrong = {
            f"a {dynamics.reset} reset": dynamics.reset != "hard",
            f"a reset to {dynamics.reset_to}": dynamics.reset_to != 0,
            f"a membrane that begins at {dynamics.initial}": dynamics.initial != 0,
            f"a decay of {decay}, outside [0, 1]": not 0 <= decay <= 1,
            "decay_input with a decay of 1, which leaves no input": decay == 1 and dynamics.decay_input,
        }
        for what, is_so in wrong.items():
            if is_so:
                raise UserError(
                    f"to_nir(): {name}: cannot write {what}: use neurons that begin at 0, have a decay in [0, 1] and "
                    "a hard reset to 0"
                )
        x = self._whole(name, x)
        rate = 1 - decay
        # Norse takes r as 1, which scales its membrane by 1 - decay, so the threshold is scaled alike.
        scale = rate if self.importer == "norse" and decay < 1 and not dynamics.decay_input else 1.0
        threshold = np.float32(scale * dynamics.threshold)
        fires_above = self.importer != "spikingjelly"
        if fires_above != dynamics.fires_above:
            threshold = np.nextafter(threshold, np.float32(-np.inf if fires_above else np.inf))
        if decay == 1 and self.importer != "snntorch":
            r = 1.0 if self.importer == "norse" else 1 / self.dt
            full = _filler(x.shape)
            node: object = nir.IF(r=full(r), v_threshold=full(threshold), v_reset=full(np.float32(0)))
            return self._add(name, node, x, spikes=True)
        if decay == 1:
            rate = 1e-12  # a leak too small for float32
        if decay == 0 and self.importer == "spikingjelly":
            raise UserError(f"to_nir(): {name}: SpikingJelly reads no decay of 0")
        r = 1.0 if dynamics.decay_input or scale != 1 else 1 / rate
        return self._leaky(name, x, tau=self.dt / rate, r=r, threshold=threshold)

    def convolution(self, name: str, x: Value, conv: nn.Conv2d, shape: tuple[int, ...]) -> Value:
        stride = conv.stride
        if x.stride > 1 and conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding in ((0, 0), "valid"):
            x, stride = Value(x.nodes, x.shape, x.spikes), (x.stride, x.stride)
        if conv.padding_mode != "zeros":
            raise UserError(f"to_nir(): {name}: NIR pads with zeros, not with padding_mode={conv.padding_mode!r}")
        weight = _dense(conv.weight, conv.groups)
        settings = {"stride": stride, "padding": conv.padding, "dilation": conv.dilation}
        return self._convolution(name, x, weight, conv.bias, shape, **settings)

    def scaled(self, name: str, x: Value, scale: Tensor, shift: Tensor, shape: tuple[int, ...]) -> Value:
        """A norm that is not folded: a factor and a bias for each channel."""
        x = self._whole(name, x)
        return self._by_channel(name, x, torch.ones(1, 1), shape, scale=scale, bias=shift)

    def linear(self, name: str, x: Value, linear: nn.Linear, shape: tuple[int, ...]) -> Value:
        import nir

        if len(x.shape) != 1:
            raise UserError(f"to_nir(): {name}: a linear layer on values of shape {x.shape}; flatten them first")
        weight = _array(linear.weight)
        node = nir.Linear(weight) if linear.bias is None else nir.Affine(weight, _array(linear.bias))
        return self._add(name, node, self._whole(name, x), shape=shape)

    def subsample(self, name: str, x: Value, stride: int, shape: tuple[int, ...]) -> Value:
        x = self._whole(name, x)
        return Value(x.nodes, x.shape, x.spikes, stride)

    def max_pool(self, name: str, x: Value, pool: nn.MaxPool2d, shape: tuple[int, ...]) -> Value:
        """Max pooling of spikes: sums over the windows, and neurons that fire where a sum exceeds half a spike."""
        if not x.spikes:
            raise UserError(
                f"to_nir(): {name}: NIR has no max pooling of values other than spikes; pool after the neuron, or use "
                "average pooling"
            )
        x = self._whole(name, x)
        _refuse_ceil(name, pool, x, shape)
        kernel, stride, padding, dilation = map(_pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation))
        pooled = self._by_channel(
            f"{name}.sum",
            x,
            torch.ones(kernel),
            shape,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        import nir

        if self.importer == "spikingjelly":  # reads no decay of 0; an IF will do: it is at 0 after every step
            full = _filler(shape)
            node = nir.IF(r=full(1 / self.dt), v_threshold=full(np.float32(0.5)), v_reset=full(np.float32(0)))
            return self._add(name, node, pooled, spikes=True)
        return self._leaky(name, pooled, tau=self.dt, r=1.0, threshold=np.float32(0.5))

    def average(self, name: str, x: Value, pool: nn.AvgPool2d, shape: tuple[int, ...]) -> Value:
        x = self._whole(name, x)
        _refuse_ceil(name, pool, x, shape)
        if pool.divisor_override is not None or (any(_pair(pool.padding)) and not pool.count_include_pad):
            raise UserError(
                f"to_nir(): {name}: NIR averages over all pixels of a window, padding included; leave "
                "divisor_override out, and use count_include_pad=True"
            )
        return self._average(name, x, shape, *map(_pair, (pool.kernel_size, pool.stride, pool.padding)))

    def adaptive(self, name: str, x: Value, shape: tuple[int, ...]) -> Value:
        """Average pooling to a size; the mean over all pixels is the size 1x1, flattened or not."""
        x = self._whole(name, x)
        flat = len(shape) == 1
        height, width = (1, 1) if flat else shape[1:]
        if len(x.shape) != 3 or x.shape[1] % height or x.shape[2] % width:
            raise UserError(f"to_nir(): {name}: averages {x.shape} to {shape}, and NIR has windows of equal size only")
        kernel = (x.shape[1] // height, x.shape[2] // width)
        if kernel == (1, 1):
            return self.flatten(name, x, shape) if flat else x
        pooled = self._average(name, x, (x.shape[0], height, width), kernel, kernel, (0, 0))
        return self.flatten(f"{name}.flatten", pooled, shape) if flat else pooled

    def flatten(self, name: str, x: Value, shape: tuple[int, ...]) -> Value:
        import nir

        x = self._whole(name, x)
        if len(shape) != 1:
            raise UserError(f"to_nir(): {name}: gives values of shape {shape}; flatten all axes but the batch into one")
        if len(x.shape) == 1:
            return x
        node = nir.Flatten(input_type={"input": np.array(x.shape)}, start_dim=0, end_dim=-1)
        return self._add(name, node, x, shape=shape, spikes=x.spikes)

    def _average(self, name, x, shape, kernel, stride, padding) -> Value:  # type: ignore[no-untyped-def]
        import nir

        if self.importer == "norse":  # has no average pooling
            windows = torch.full(kernel, 1 / (kernel[0] * kernel[1]))
            return self._by_channel(name, self._whole(name, x), windows, shape, stride=stride, padding=padding)
        node = nir.AvgPool2d(kernel_size=np.array(kernel), stride=np.array(stride), padding=np.array(padding))
        return self._add(name, node, self._whole(name, x), shape=shape)

    def _leaky(self, name: str, x: Value, *, tau: float, r: float, threshold: np.float32) -> Value:
        import nir

        full = _filler(x.shape)
        zero = full(np.float32(0))
        node = nir.LIF(tau=full(tau), r=full(r), v_leak=zero, v_reset=zero, v_threshold=full(threshold))
        return self._add(name, node, x, spikes=True)

    def _by_channel(
        self, name: str, x: Value, kernel: Tensor, shape: tuple[int, ...], *,
        scale: Tensor | None = None, bias: Tensor | None = None, **settings: object,
    ) -> Value:  # fmt: skip
        """A depthwise convolution with one kernel for all channels."""
        channels = x.shape[0]
        kernels = kernel.expand(channels, 1, *kernel.shape)
        if scale is not None:
            kernels = kernels * scale.view(-1, 1, 1, 1)
        return self._convolution(name, x, _dense(kernels, channels), bias, shape, **settings)  # type: ignore[arg-type]

    def _convolution(
        self, name: str, x: Value, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...], *,
        stride: Sequence[int] = (1, 1), padding: Sequence[int] | str = (0, 0),
        dilation: Sequence[int] = (1, 1),
    ) -> Value:  # fmt: skip
        import nir

        x = self._whole(name, x)
        if weight.shape[2] != weight.shape[3]:  # nir infers both sizes of the output from one of the kernel's
            size = " x ".join(map(str, weight.shape[2:]))
            raise UserError(f"to_nir(): {name}: NIR has square kernels only, and this is {size}; pad it with zeros")
        node = nir.Conv2d(
            input_shape=(x.shape[1], x.shape[2]),
            weight=_array(weight),
            stride=tuple(stride),  # type: ignore[arg-type]
            padding=padding if isinstance(padding, str) else tuple(padding),  # type: ignore[arg-type]
            dilation=tuple(dilation),  # type: ignore[arg-type]
            groups=1,
            bias=np.zeros(len(weight), np.float32) if bias is None else _array(bias),
        )
        return self._add(name, node, x, shape=shape)

    def _whole(self, name: str, x: Value) -> Value:
        """The value with its pending stride applied, by a convolution of its own."""
        if x.stride == 1:
            return x
        shape = (x.shape[0], *(-(-size // x.stride) for size in x.shape[1:]))
        plain = Value(x.nodes, x.shape, x.spikes)
        return self._by_channel(f"{name}.subsample", plain, torch.ones(1, 1), shape, stride=(x.stride, x.stride))

    def _add(self, name: str, node: object, x: Value, *, shape: tuple[int, ...] = (), spikes: bool = False) -> Value:
        self.nodes[name] = node
        self.edges += [(source, name) for source in x.nodes]
        return Value((name,), shape or x.shape, spikes)


def _refuse_ceil(name: str, pool: nn.MaxPool2d | nn.AvgPool2d, x: Value, shape: tuple[int, ...]) -> None:
    """Refuse `ceil_mode` where it changes the output size: NIR has no windows that reach beyond the padding."""
    kernel, stride, padding = map(_pair, (pool.kernel_size, pool.stride, pool.padding))
    dilation = _pair(getattr(pool, "dilation", 1))
    sizes = zip(x.shape[1:], kernel, stride, padding, dilation, strict=True)
    floor = tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes)
    if floor != shape[1:]:
        raise UserError(
            f"to_nir(): {name}: ceil_mode on a size of {x.shape[1:]}: NIR rounds down; pad or use even sizes"
        )


def _dense(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped convolution as that of an ungrouped one: NIR's own checks refuse a file with groups."""
    if groups == 1:
        return weight
    blocks = weight.unflatten(0, (groups, -1))  # [groups, channels a group, inputs a group, kernel]
    dense = weight.new_zeros(groups, blocks.shape[1], groups, *blocks.shape[2:])
    each = torch.arange(groups)
    dense[each, :, each] = blocks
    return dense.flatten(2, 3).flatten(0, 1)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _filler(shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
    return lambda value: np.full(shape, value)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
