"""Batch norm in two halves, against PyTorch's."""

import pytest
import torch
from torch import nn

from shortback.ops import norm
from shortback.ops.norm import Statistics


def values(dtype=torch.float64, offset=0.0):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, 3, 35, 6, generator=generator, dtype=torch.float64) * 3 + offset).to(dtype)


def as_image(rows):
    return rows.flatten(0, 1).unflatten(1, (5, 7)).permute(0, 3, 1, 2)


def test_statistics_and_output():
    z = values()
    weight, bias = torch.rand(6, dtype=z.dtype), torch.randn(6, dtype=z.dtype)
    (mean, variance), affine = norm.measure(z, weight, bias, 1e-5)
    torch.testing.assert_close(mean, z.mean((0, 1, 2)))
    torch.testing.assert_close(variance, z.var((0, 1, 2), correction=0))
    expected = nn.functional.batch_norm(as_image(z), None, None, weight, bias, training=True)
    torch.testing.assert_close(as_image(z * affine.scale + affine.shift), expected)


@pytest.mark.parametrize("offset", [0.0, 30.0, 3000.0])
def test_a_large_mean_takes_no_digits_from_the_variance(offset):
    z = values(torch.float32, offset)
    statistics, _ = norm.measure(z, torch.ones(6), torch.zeros(6), 1e-5)
    expected = z.double().var((0, 1, 2), correction=0).float()
    torch.testing.assert_close(statistics.variance, expected, rtol=2e-6, atol=0)


def with_outliers(kind):
    """Values `[2, 4, 64 * 64, 3]` of which some are far from all others."""
    z = torch.randn(2, 4, 64 * 64, 3, generator=torch.Generator().manual_seed(0))
    match kind:
        case "one pixel":
            z[0, 0, 0] = 1e4
        case "a corner of all images":
            z[:, :, 0] = 1e3
        case "the border of all images":
            z.unflatten(2, (64, 64))[:, :, 0] = 50
            z.unflatten(2, (64, 64))[:, :, :, 0] = 50
        case "counts, and a hot pixel":
            z = (z > 3).float()
            z[:, :, 0] = 255
        case "another mean in each image":
            z += torch.arange(8.0).view(2, 4, 1, 1) * 100
        case "one image":
            z = z[:1, :1].contiguous()
            z[:, :, 0] = 1e3
    return z


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "kind",
    [
        *("one pixel", "a corner of all images", "the border of all images", "counts, and a hot pixel"),
        *("another mean in each image", "one image"),
    ],
)
def test_outliers_take_no_digits_from_the_variance(kind, dtype):
    z = with_outliers(kind).to(dtype)
    statistics, _ = norm.measure(z, torch.ones(3), torch.zeros(3), 1e-5)
    exact = z.double().flatten(0, 2)
    variance = exact.var(0, correction=0)
    torch.testing.assert_close(statistics.variance.double(), variance, rtol=1e-4, atol=0)
    assert ((statistics.mean.double() - exact.mean(0)).abs() < 1e-5 * variance.sqrt()).all()


def test_a_constant_channel_has_no_variance():
    for dtype in (torch.float32, torch.bfloat16):
        z = torch.full((1, 2, 4, 3), 0.3, dtype=dtype)
        statistics, affine = norm.measure(z, torch.ones(3), torch.zeros(3), 1e-5)
        assert statistics.variance.tolist() == [0, 0, 0]
        assert affine.scale.isfinite().all()


def test_few_pixels():
    for pixels in (1, 2, 3, 4, 7):
        z = torch.randn(2, 3, pixels, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        statistics, _ = norm.measure(z, torch.ones(2), torch.zeros(2), 1e-5)
        torch.testing.assert_close(statistics.mean, z.mean((0, 1, 2)))
        torch.testing.assert_close(statistics.variance, z.var((0, 1, 2), correction=0))


@pytest.mark.parametrize("from_batch", [True, False])
def test_gradients(from_batch):
    z = values().requires_grad_()
    weight = torch.rand(6, dtype=z.dtype).requires_grad_()
    bias = torch.randn(6, dtype=z.dtype).requires_grad_()
    grad = values().flip(0).sin()
    fixed = torch.randn(6, dtype=z.dtype), torch.rand(6, dtype=z.dtype)
    given = (None, None) if from_batch else fixed
    expected = nn.functional.batch_norm(as_image(z), *given, weight, bias, training=from_batch)
    (expected * as_image(grad)).sum().backward()
    with torch.no_grad():
        statistics, affine = norm.measure(z, weight, bias, 1e-5)
        if not from_batch:
            statistics = Statistics(*fixed)
            affine = norm.affine(statistics, weight, bias, 1e-5)
        got = norm.backward(
            z,
            grad,
            mean=statistics.mean,
            scale=affine.scale,
            inverse_std=affine.inverse_std,
            from_batch=from_batch,
        )
    for actual, leaf in zip(got, (z, weight, bias), strict=True):
        torch.testing.assert_close(actual, leaf.grad)
