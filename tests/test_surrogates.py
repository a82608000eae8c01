import math

import numpy as np
import pytest
import torch

from shortback import surrogates
from shortback.surrogates import SURROGATES, Arctan, FastSigmoid, Rectangular, Sigmoid, TanhWindow, Triangular

ALL = [surrogate() for surrogate in SURROGATES.values()]
NAMES = list(SURROGATES)


@pytest.mark.parametrize("surrogate", ALL, ids=NAMES)
def test_gradient_is_the_derivative_of_value(surrogate):
    z = torch.linspace(-2, 2, 400, dtype=torch.float64).add(1e-3).requires_grad_()  # off the kinks
    surrogate.value(z).sum().backward()
    torch.testing.assert_close(z.grad, surrogate.gradient(z.detach()))


@pytest.mark.parametrize("kind", SURROGATES.values(), ids=NAMES)
def test_area_and_peak_scales(kind):
    z = torch.linspace(-4000, 4000, 8_000_001, dtype=torch.float64)
    unit_area, unit_peak = kind(scale="area"), kind(scale="peak")
    assert unit_area.area == pytest.approx(1)
    assert torch.trapezoid(unit_area.gradient(z), z).item() == pytest.approx(1, abs=1e-3)
    assert unit_peak.gradient(torch.zeros(1)).item() == 1
    assert kind(scale=0.3).gradient(torch.zeros(1)).item() == pytest.approx(0.3)
    assert kind(scale=0.3).area == pytest.approx(0.3 * unit_peak.area)


def test_values_computed_by_hand():
    z = torch.tensor([-0.75, 0.0, 0.25])
    expected = {
        Rectangular(half_width=0.5): [0, 1, 1],
        Rectangular(half_width=0.4): [0, 1.25, 1.25],
        Triangular(half_width=1.0): [0.25, 1, 0.75],
        Triangular(half_width=0.5, scale="peak"): [0, 1, 0.5],
        Arctan(slope=2.0): [1 / (1 + (0.75 * math.pi) ** 2), 1, 1 / (1 + (0.25 * math.pi) ** 2)],
        FastSigmoid(slope=2.0): [1 / 2.5**2, 1, 1 / 1.5**2],
    }
    for surrogate, numbers in expected.items():
        torch.testing.assert_close(surrogate.gradient(z), torch.tensor(numbers, dtype=torch.float32))
    assert Sigmoid(slope=4.0).gradient(torch.zeros(1)).item() == 1
    # MPBN's surrogate at the middle of its window: k / (2 tanh(k / 2)) with k = 3.
    assert TanhWindow().gradient(torch.zeros(1)).item() == pytest.approx(3 / (2 * math.tanh(1.5)))
    assert TanhWindow().gradient(torch.tensor([0.51])).item() == 0


def test_smooth_step_goes_from_zero_to_the_area():
    far = torch.tensor([-1e6, 1e6], dtype=torch.float64)
    for surrogate in ALL:
        torch.testing.assert_close(surrogate.value(far), torch.tensor([0.0, 1.0]).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrong", [0, -1, math.inf, "wide", True])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="half_width"):
        Triangular(half_width=wrong)
    with pytest.raises(ValueError, match="'area', 'peak' or a positive number"):
        Triangular(scale=wrong)


def test_a_name_of_another_library_names_the_nearest():
    with pytest.raises(AttributeError, match="no attribute 'ATan'; the nearest are Arctan"):
        _ = surrogates.ATan


def test_numbers_of_numpy_are_numbers():
    assert Triangular(half_width=np.float32(0.5)) == Triangular(half_width=0.5)
    assert type(Triangular(half_width=np.float32(0.5)).half_width) is float
    assert Arctan(slope=2) == Arctan(slope=2.0)
