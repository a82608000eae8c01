import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection.untouched import undisturbed


def test_modes_buffers_and_random_state_come_back_even_after_an_error():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    net[1].eval()
    before, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()

    def disturb():
        with undisturbed(net):
            net.train()(torch.randn(4, 3))
            assert net[0].num_batches_tracked == 1
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        disturb()
    assert [m.training for m in net.modules()] == [True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_what_a_module_remembers_comes_back():
    """A state in a plain attribute, one in a buffer that is replaced, and one that was not there before."""

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.membrane = None
            self.register_buffer("trace", torch.zeros(2), persistent=False)

        def forward(self, x):
            self.membrane, self.trace, self.late = x, self.trace + x, x

    cell = Cell()
    trace = cell.trace
    with undisturbed(cell):
        cell(torch.ones(2))
        assert cell.late is cell.membrane
    assert cell.membrane is None
    assert cell.trace is trace
    assert not hasattr(cell, "late")
    cell(graph := torch.ones(2, requires_grad=True) * 2)
    with undisturbed(cell):
        cell(torch.ones(2))
    assert cell.membrane is graph  # still a part of its graph
    cell.trace.sum().backward()


def test_norms_that_know_no_shape_yet_have_fresh_statistics_afterwards():
    blocks = [nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU()) for _ in range(2)]
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    branched = sb.attach(net, at=["0"], sample=torch.randn(4, 3, 9, 9) + 5)
    for norm in (blocks[0][1], blocks[1][1]):
        assert (norm.running_mean == 0).all()
        assert (norm.running_var == 1).all()
        assert norm.num_batches_tracked == 0
    branched.train()(torch.randn(4, 3, 9, 9))
    with undisturbed(net):
        net(torch.randn(4, 3, 9, 9))
    assert blocks[0][1].num_batches_tracked == 1
