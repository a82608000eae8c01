"""Operations of one layer beside a convolution of ones, in one, two and three axes of space."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shortback.export.counting import Count, is_counted, row_operations


@pytest.mark.parametrize("padding", ["same", "valid", 2])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_of_any_axes(axes, padding):
    torch.manual_seed(0)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    stride = 1 if padding == "same" else 2
    conv = kind(4, 6, (3, 5, 1)[:axes], padding=padding, groups=2, stride=stride, dilation=(2, 1, 1)[:axes])
    x = torch.randn(3, 4, *(9, 8, 7)[:axes]).relu()
    effective, dense = row_operations(conv, x, conv(x))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    settings = {"padding": padding, "groups": 2, "stride": stride, "dilation": conv.dilation}
    active = convolve((x != 0).double(), torch.ones_like(conv.weight).double(), **settings)
    every = convolve(torch.ones_like(x).double(), torch.ones_like(conv.weight).double(), **settings)
    assert effective.tolist() == active.flatten(1).sum(1).tolist()
    assert dense == every[0].sum()


def test_steps_before_the_samples_are_rows():
    """As of SpikingJelly's convolutions, of `[T, N, C, H, W]`; and of one image without a batch."""
    conv, x = nn.Conv2d(2, 3, 3), torch.randn(6, 2, 5, 5).relu()
    expected, dense = row_operations(conv, x, conv(x))
    effective, other = row_operations(conv, x.unflatten(0, (2, 3)), conv(x).unflatten(0, (2, 3)))
    assert torch.equal(effective, expected)
    assert other == dense
    assert torch.equal(row_operations(conv, x[0], conv(x[0]))[0], expected[:1])


def test_a_linear_layer_on_a_vector_is_a_row():
    linear, x = nn.Linear(4, 3), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert row_operations(linear, x, linear(x))[0].tolist() == [6]


def test_inputs_by_name_are_counted():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 2, 1), nn.Linear(2, 3)

        def forward(self, x):
            return self.fc(input=self.conv(input=x).mean([2, 3]))

    net = ByName()
    count = Count(net)
    net(torch.ones(5, 1, 2, 2))
    count.remove()
    assert {name: (sums.dense, sums.maps) for name, sums in count.layers.items()} == {"conv": (40, 5), "fc": (30, 5)}
    assert not any(module._forward_hooks for module in net.modules())


def test_padding_with_the_image_is_not_counted():
    assert is_counted(nn.Conv2d(1, 1, 3, padding=1))
    assert is_counted(nn.Conv2d(1, 1, 3, padding_mode="circular"))
    assert not is_counted(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"))
