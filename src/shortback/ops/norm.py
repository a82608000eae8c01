r"""Batch norm in two halves: the scale and shift of each channel, and the gradients.

With $z$ the $n$ values of a channel, the norm is the affine map

$$y = a\,z + b, \qquad a = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \qquad b = \beta - a\,\mu$$

which the kernel that reads $z$ applies on the fly. With $g$ the gradient of $y$ and
$\hat z = (z - \mu) / \sqrt{\sigma^2 + \epsilon}$,

$$g_\beta = \sum g, \qquad g_\gamma = \sum g\,\hat z, \qquad
  g_z = a \left( g - \frac{g_\beta + \hat z\, g_\gamma}{n} \right)$$

if the statistics were measured on $z$ itself, and $g_z = a\,g$ if they are fixed. Values are `[T, N, S, C]` with `S`
pixels; numbers per channel are `[C]`, in float32 (float64 for float64).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shortback.ops import kernels


class Statistics(NamedTuple):
    """Mean and biased variance of the channels."""

    mean: Tensor
    variance: Tensor


class Affine(NamedTuple):
    """The scale and shift that a norm applies to each channel, and the inverse of the standard deviation."""

    scale: Tensor
    shift: Tensor
    inverse_std: Tensor


def measure(z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Statistics, Affine]:
    """Return the statistics of `z`, and the norm that follows from them."""
    images = _as_images(z)
    mean, variance, *affine = kernels.run(_measure, (eps,), images, _origins(images[0]), weight, bias)
    return Statistics(mean, variance), Affine(*affine)


def affine(statistics: Statistics, weight: Tensor, bias: Tensor, eps: float) -> Affine:
    """Return the norm that follows from given statistics, in their precision or a higher one."""
    mean, variance = statistics
    weight, bias = (v.to(torch.promote_types(v.dtype, mean.dtype)) for v in (weight, bias))
    inverse_std = torch.rsqrt(variance + eps)
    scale = inverse_std * weight
    return Affine(scale, bias - mean * scale, inverse_std)


def backward(
    z: Tensor, grad: Tensor, *, mean: Tensor, scale: Tensor, inverse_std: Tensor, from_batch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `z`, of the weight and of the bias.

    Args:
        z: the values.
        grad: gradient of the output of the norm, in the dtype of `z`.
        mean, scale, inverse_std: of the norm, see above.
        from_batch: whether the statistics were measured on `z`.
    """
    share = mean.new_full((), scale.numel() / z.numel())
    arguments = _as_images(z), _as_images(grad), mean, scale, inverse_std, share
    grad_z, grad_weight, grad_bias = kernels.run(_backward, (from_batch,), *arguments)
    return grad_z.view(z.shape), grad_weight, grad_bias


def _as_images(values: Tensor) -> Tensor:
    """Reshape values to `[1, T*N, S, C]`, so that one kernel serves any number of steps."""
    return values.reshape(1, -1, *values.shape[2:])


def _origins(images: Tensor) -> Tensor:
    """Return a value of every image and channel that is unlikely to be an outlier, the median of three pixels.

    A single pixel may be an outlier, at the border or as a hot pixel of a sensor. The pixels are read outside the
    kernel, which would otherwise be compiled for their places. They are at fifths of the image; few widths put these
    in the first column.

    Shape:
        `[N, S, C] -> [1, N, C]`.
    """
    first, second, third = (images[:, images.shape[1] * fifth // 5] for fifth in (1, 2, 3))
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return torch.maximum(low, torch.minimum(high, third))[None]


def _measure(eps: float, z: Tensor, origins: Tensor, weight: Tensor, bias: Tensor):
    images = z[0].to(kernels.accumulation_dtype(z.dtype))
    pixels = images.shape[1]
    # Centred at a value of the channel itself, the variance loses no digits to the square of the mean.
    origin = origins[0].to(images.dtype)
    centred = images - origin[:, None]
    offsets = centred.sum(1) / pixels
    within = (centred.square().sum(1) / pixels - offsets.square()).clamp_min(0)
    means = offsets + (origin - origin[0])
    mean = means.mean(0)
    statistics = Statistics(mean + origin[0], within.mean(0) + (means - mean).square().mean(0))
    return *statistics, *affine(statistics, weight, bias, eps)


def _backward(
    from_batch: bool, z: Tensor, grad: Tensor, mean: Tensor, scale: Tensor, inverse_std: Tensor, share: Tensor
):
    centred = z[0].to(mean.dtype) - mean
    gradient = grad[0].to(mean.dtype)
    sums = gradient.sum(1)
    products = (gradient * centred).sum(1) * inverse_std
    if from_batch:
        # Applied to the final sums, the factors need not multiply every element below.
        offset = (sums * share).sum(0)
        slope = (products * (inverse_std * share)).sum(0)
        gradient = gradient - offset - centred * slope
    return (gradient * scale).to(z.dtype), products.sum(0), sums.sum(0)
