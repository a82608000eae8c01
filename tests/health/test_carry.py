"""The axis along which a neuron carries its membrane."""

import pytest
import torch
from torch import nn

from shortback.health.carry import axes_of_time
from tests.health.foreign import MultiStep, OneStep, Spike


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_it_is_found_wherever_it_is(axis):
    torch.manual_seed(0)
    assert axes_of_time(MultiStep(axis), (torch.randn(5, 5, 5, 5),), None) == [axis]


def test_of_one_step_there_is_none():
    torch.manual_seed(0)
    assert axes_of_time(OneStep(membrane_first=True), (torch.randn(4, 3, 6, 6),), 1) == []


def test_what_mixes_pixels_or_features_takes_no_time():
    class Firing(nn.Sequential):
        def forward(self, x):
            return Spike.apply(super().forward(x) - 0.1)

    torch.manual_seed(0)
    assert axes_of_time(Firing(nn.Conv2d(3, 3, 3, padding=1)), (torch.randn(3, 3, 6, 6),), None) == []
    assert axes_of_time(Firing(nn.Linear(6, 6)), (torch.randn(3, 4, 6),), None) == []


def test_a_stronger_input_is_tried_where_nothing_fires():
    assert axes_of_time(MultiStep(1), (torch.zeros(3, 6, 20),), None) == [1]
