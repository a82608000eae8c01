"""A layer of convolution, batch norm and neuron, run as one operation wherever the result is the same."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from shortback import ops
from shortback.neurons import SpikingNeuron
from shortback.torch_private import is_functional, is_hooked, is_patched, version_of


def conv_norm_fire(
    x: Tensor, *, conv: nn.Module, norm: nn.Module, neuron: nn.Module, residual: Tensor | None = None
) -> Tensor:
    """Return `neuron(norm(conv(x)) + residual)`, computed in one pass over memory where possible.

    That is possible for an `nn.Conv2d` without a bias, an `nn.BatchNorm2d` with weights and running statistics and a
    neuron of this package on the compiled backend, in channels-last, if none of them is patched or hooked (hooks expect
    their module to be called), no surrounding graph is being compiled and no transform of `torch.func` is active. The
    current then stays in float32, while between modules it is rounded to the precision of the network; the norm's
    statistics are updated as usual. In all other cases the modules run one by one.

    Args:
        x: `[T*N, C, H, W]`, or `[N, C, H, W]` if the neuron's input is static.
        conv: the convolution.
        norm: its norm.
        neuron: the neuron.
        residual: added to the current of the neuron, `[T*N, C', H', W']`.
    """
    if not _is_one_operation(x, conv, norm, neuron):
        current = norm(conv(x))
        return neuron(current if residual is None else current + residual)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(neuron, SpikingNeuron)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert not isinstance(conv.padding, str)
    if not neuron.static_input:
        neuron.unfold(x)  # raises if the rows of x are not a multiple of the steps
    output = ops.conv_norm_neuron(
        x,
        conv_weight=conv.weight,
        convolution=ops.Convolution(conv.stride, conv.padding, conv.dilation, conv.groups),
        norm_weight=norm.weight,
        norm_bias=norm.bias,
        eps=norm.eps,
        statistics=None if norm.training else ops.Statistics(norm.running_mean, norm.running_var),
        residual=residual,
        dynamics=neuron.dynamics,
        decay=neuron.leak(),
        num_steps=neuron.num_steps,
        static_input=neuron.static_input,
        memory=neuron.memory,
        # `on_spikes` must see the whole gradient of the spikes, including that of their average.
        average=neuron.averages_output and neuron.on_spikes is None,
    )
    if output.statistics is not None:
        rows = output.spikes[:, 0].numel() // (neuron.num_steps if neuron.static_input else 1)
        _update(norm, output.statistics, rows)
    if output.average is not None and not output.spikes.is_inference():
        output.spikes._average = _Average(output.average, version_of(output.spikes))  # type: ignore[attr-defined]
    if neuron.on_spikes is not None:
        neuron.on_spikes(output.spikes)
    return output.spikes


class _Average(NamedTuple):
    """The average that a tensor of spikes carries, and the version of the tensor when it was computed."""

    value: Tensor
    version: int


def average_of(spikes: Tensor) -> Tensor | None:
    """Return the average `[N, C]` over time and space attached to spikes by a layer whose neuron `averages_output`.

    Returns:
        None for any other tensor, and for spikes that were changed in place since.
    """
    left: _Average | None = getattr(spikes, "_average", None)
    return left.value if left is not None and left.version == version_of(spikes) else None


@torch.no_grad()
def _update(norm: nn.BatchNorm2d, statistics: ops.Statistics, count: int) -> None:
    """Update the running statistics of a norm as its own `forward` does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(statistics.mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((statistics.variance * (count / (count - 1))).to(norm.running_var.dtype), momentum)


def _is_one_operation(x: Tensor, conv: nn.Module, norm: nn.Module, neuron: nn.Module) -> bool:
    return (
        isinstance(x, Tensor)  # not a proxy of a symbolic trace
        and not torch.compiler.is_compiling()
        and not is_functional()
        and type(conv) is nn.Conv2d
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and type(norm) is nn.BatchNorm2d
        and norm.weight is not None
        and norm.bias is not None
        and norm.track_running_stats
        and isinstance(neuron, SpikingNeuron)
        and type(neuron).forward is SpikingNeuron.forward
        and x.ndim == 4
        and x.numel() > 0
        and _is_channels_last(x, conv.weight)
        and (x.dtype == conv.weight.dtype or _is_cast(x))  # otherwise the convolution raises its own error
        and not any(is_hooked(module) or is_patched(module) for module in (conv, norm, neuron))
        and ops.resolve(neuron.backend, x.device.type) == "compiled"
        and (x.shape[0] > 1 or not norm.training)  # the norm raises its own error on one value per channel
    )


def _is_cast(x: Tensor) -> bool:
    return x.is_floating_point() and torch.is_autocast_enabled(x.device.type)


def _is_channels_last(x: Tensor, weight: Tensor) -> bool:
    """Return whether the convolution returns its output in channels-last."""
    in_weight = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return in_weight or x.is_contiguous(memory_format=torch.channels_last)
