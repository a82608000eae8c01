r"""A convolution, its batch norm and a neuron as one operation, which keeps almost nothing for the backward pass.

The kernels of the neuron normalise the output $z$ of the convolution while reading it, and add the residual $r$: the
current $x = a\,z + b + r$ (`norm.py`) is never stored. The operation keeps for the backward pass

| memory     | the input of the convolution | $z$                    | the residual |
|------------|------------------------------|------------------------|--------------|
| `fast`     | as it is                     | as it is               | as it is     |
| `balanced` | one bit a spike              | as it is               | one bit      |
| `small`    | one bit a spike              | convolved once more    | one bit      |

Inputs and residuals without packed spikes are always kept as they are.

The mean of the spikes over time and space, which a branch taps, is counted from the bits. Its gradient, constant over
time and space, is added where the gradient of the spikes is read. Neither costs a pass over the activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shortback.choices import Memory
from shortback.ops import kernels, layer_kernels, norm, packing
from shortback.ops.dynamics import Dynamics, as_scalar_decay
from shortback.ops.kernels import Kind
from shortback.ops.norm import Statistics
from shortback.ops.packing import PackedSpikes
from shortback.torch_private import without_autocast


class Convolution(NamedTuple):
    """The settings of a convolution without a bias, per spatial axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class _Plan:
    """The arguments of one call of the operation, except tensors that may need a gradient and packed bits."""

    kind: Kind
    convolution: Convolution
    eps: float
    fixed: Statistics | None
    memory: Memory
    packed_input_steps: int | None
    residual_is_packed: bool
    average: bool
    keeps: bool
    steps: int


class LayerOutput(NamedTuple):
    """Spikes `[T*N, C, H, W]` in channels-last, their average `[N, C]` if requested, and the statistics if measured."""

    spikes: Tensor
    average: Tensor | None
    statistics: Statistics | None


def conv_norm_neuron(
    x: Tensor,
    *,
    conv_weight: Tensor,
    convolution: Convolution,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    statistics: Statistics | None,
    residual: Tensor | None,
    dynamics: Dynamics,
    decay: float | Tensor,
    num_steps: int,
    static_input: bool,
    memory: Memory,
    average: bool,
) -> LayerOutput:
    """Run a layer by its compiled kernels, which work in channels-last only.

    Args:
        x: `[T*N, C, H, W]`, or `[N, C, H, W]` with `static_input`.
        statistics: to normalise by; None to measure them on the batch.
        residual: added to the current; has the shape of the output.
        memory: what is kept for the backward pass, see the table of this module.
        average: whether to return the average of the spikes over time and space.
    """
    decay = as_scalar_decay(decay)
    learned = decay if isinstance(decay, Tensor) else None
    inputs = x, conv_weight, norm_weight, norm_bias, residual, learned
    packed_input = None if memory == "fast" else packing.packed_of(x)
    packed_residual = None if memory == "fast" or residual is None else packing.packed_of(residual)
    if packed_residual is not None and packed_residual.num_steps != num_steps:
        packed_residual = None  # packed with another number of steps, while kernels unpack by step
    plan = _Plan(
        kind=Kind.of(dynamics, decay, num_steps),
        convolution=convolution,
        eps=eps,
        fixed=statistics,
        memory=memory,
        packed_input_steps=None if packed_input is None else packed_input.num_steps,
        residual_is_packed=packed_residual is not None,
        average=average,
        keeps=torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs),
        steps=1 if static_input else num_steps,
    )
    bits_of = [None if packed is None else packed.bits for packed in (packed_input, packed_residual)]
    made = _LayerResults(*_ConvNormNeuron.apply(*inputs, *bits_of, plan))
    spikes = _image(made.spikes, made.z.shape[2:])  # unlike a view made in `forward`, this may be changed in place
    if made.bits is not None:
        packing.attach_packed(spikes, made.bits, num_steps)
    return LayerOutput(spikes, made.average, None if statistics is not None else Statistics(made.mean, made.variance))


class _LayerResults(NamedTuple):
    """The results of the operation: `spikes` and `average` for its caller, the others to be kept."""

    spikes: Tensor
    average: Tensor | None
    bits: Tensor | None
    z: Tensor
    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor
    inverse_std: Tensor


class _ConvNormNeuron(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor,
        conv_weight: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        residual: Tensor | None,
        decay: Tensor | None,
        input_bits: Tensor | None,
        residual_bits: Tensor | None,
        plan: _Plan,
    ) -> tuple[Any, ...]:
        dtype = _compute_dtype(x)
        z = _convolve(x.to(dtype), conv_weight.to(dtype), plan.convolution)
        rows = _rows(z, plan.steps)
        if plan.fixed is None:
            statistics, affine = norm.measure(rows, norm_weight, norm_bias, plan.eps)
        else:
            # Copied, since the norm may update its statistics before the backward pass, which needs the current ones.
            statistics = Statistics(*(v.to(kernels.accumulation_dtype(v.dtype), copy=True) for v in plan.fixed))
            affine = norm.affine(statistics, norm_weight, norm_bias, plan.eps)
        spikes, bits = kernels.run(
            layer_kernels.forward,
            (plan.kind, plan.keeps or plan.average),
            rows,
            affine.scale,
            affine.shift,
            None if residual is None else _rows(residual, plan.kind.num_steps),
            decay,
        )
        average = PackedSpikes(bits, plan.kind.num_steps).average(affine.scale.dtype) if plan.average else None
        return tuple(_LayerResults(spikes, average, bits, z, *statistics, *affine))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        x, conv_weight, _, _, residual, decay, input_bits, residual_bits, plan = inputs
        made = _LayerResults(*output)
        ctx.mark_non_differentiable(*(tensor for tensor in made[2:] if tensor is not None))
        ctx.set_materialize_grads(False)
        if plan.keeps:
            ctx.save_for_backward(
                x if input_bits is None else input_bits,
                conv_weight,
                residual if residual_bits is None else residual_bits,
                decay,
                made.mean,
                made.scale,
                made.shift,
                made.inverse_std,
                None if plan.memory == "small" else made.z,
            )
            ctx.plan, ctx.dtype, ctx.input_size, ctx.size = plan, made.z.dtype, x.shape[2:], made.z.shape[2:]

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_spikes: Tensor | None, grad_average: Tensor | None, *kept: None
    ) -> tuple[Tensor | None, ...]:
        kernels.refuse_second_derivative()
        plan: _Plan = ctx.plan
        num_steps = plan.kind.num_steps
        x, conv_weight, residual, decay, mean, scale, shift, inverse_std, z = ctx.saved_tensors
        input_dtype = x.dtype if plan.packed_input_steps is None else ctx.dtype
        if residual is not None and not plan.residual_is_packed:
            residual = _rows(residual, num_steps)
        weight = conv_weight.to(ctx.dtype)
        if z is None:
            z = _convolve(_unpacked(ctx, x), weight, plan.convolution)
        rows = _rows(z, plan.steps)
        del z
        _, batch, pixels, channels = rows.shape
        if grad_spikes is None:
            grad_spikes = rows.new_zeros(num_steps, batch, pixels, channels)
        else:
            grad_spikes = grad_spikes.contiguous()
        spread = mean.new_zeros(batch, channels) if grad_average is None else grad_average / (num_steps * pixels)
        grad_current, grad_residual, grad_decay = kernels.run(
            layer_kernels.backward,
            (plan.kind,),
            rows,
            # Per sample, like the gradient of the average: the compiler fuses loops over the same axes into one.
            _by_sample(scale, batch),
            _by_sample(shift, batch),
            residual,
            decay,
            grad_spikes,
            spread[None, :, None],
        )
        del residual, grad_spikes
        grad_z, grad_norm_weight, grad_norm_bias = norm.backward(
            rows, grad_current, mean=mean, scale=scale, inverse_std=inverse_std, from_batch=plan.fixed is None
        )
        del rows, grad_current  # frees memory for the gradients of the convolution
        grad_x, grad_conv_weight, _ = torch.ops.aten.convolution_backward(
            _image(grad_z, ctx.size),
            _unpacked(ctx, x),  # unpacked only now, or a second time, to free the memory in between
            weight,
            None,
            *plan.convolution[:3],
            False,
            [0, 0],
            plan.convolution.groups,
            [*ctx.needs_input_grad[:2], False],
        )
        return (
            None if grad_x is None else grad_x.to(input_dtype),
            None if grad_conv_weight is None else grad_conv_weight.to(conv_weight.dtype),
            grad_norm_weight,
            grad_norm_bias,
            None if grad_residual is None else _image(grad_residual, ctx.size),
            grad_decay,
            None,
            None,
            None,
        )


def _unpacked(ctx: Any, x: Tensor) -> Tensor:
    """Restore the input of the convolution from what was kept of it."""
    if ctx.plan.packed_input_steps is not None:
        x = _image(PackedSpikes(x, ctx.plan.packed_input_steps).unpack(ctx.dtype), ctx.input_size)
    return x.to(ctx.dtype)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which the convolution runs: that of autocast if enabled, except for float64 inputs."""
    kind = x.device.type
    lowered = torch.is_autocast_enabled(kind) and x.dtype != torch.float64
    return torch.get_autocast_dtype(kind) if lowered else x.dtype


def _convolve(x: Tensor, weight: Tensor, convolution: Convolution) -> Tensor:
    """Convolve in the given precision: when repeated in the backward pass, autocast may be on where it was off."""
    return without_autocast(lambda x, weight: F.conv2d(x, weight, None, *convolution), x, weight)


def _rows(image: Tensor, steps: int) -> Tensor:
    """Return `[T*N, C, H, W]` as `[T, N, S, C]`, copied only if it is not in channels-last."""
    rows = image.permute(0, 2, 3, 1).contiguous()
    return rows.view(steps, rows.shape[0] // steps, -1, rows.shape[3])


def _image(rows: Tensor, size: Sequence[int]) -> Tensor:
    """Return `[T, N, S, C]` as `[T*N, C, H, W]` in channels-last, where `size` is `(H, W)`."""
    return rows.view(-1, *size, rows.shape[3]).permute(0, 3, 1, 2)


def _by_sample(channels: Tensor, batch: int) -> Tensor:
    """Copy `[C]` to a contiguous `[1, N, 1, C]`."""
    return channels.expand(1, batch, 1, -1).contiguous()
