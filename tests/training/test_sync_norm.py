"""On one process the synchronised norm must be PyTorch's; test_distributed has it on two."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from shortback.training._evaluate import layout_of_output
from shortback.training.sync_norm import SyncNorm, local_norms, restore_norms, synchronise_norms


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def steps_of(library_norm):
    """SpikingJelly's norm over a sequence, `[T, N, C, H, W]`, which folds time in its own forward."""
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    return getattr(layer, library_norm)(5, step_mode="m")


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.BatchNorm2d(5), (6, 5, 4, 3)),
        (lambda: nn.BatchNorm1d(5), (6, 5)),
        (lambda: nn.BatchNorm1d(5), (6, 5, 7)),
        (lambda: nn.BatchNorm3d(5), (6, 5, 2, 4, 3)),
        (lambda: nn.BatchNorm2d(5, affine=False, momentum=None), (6, 5, 4, 3)),
        (lambda: steps_of("BatchNorm2d"), (5, 5, 5, 4, 3)),  # T = N = C, where a wrong axis goes unnoticed
    ],
)
@pytest.mark.usefixtures("one_process")
def test_outputs_gradients_and_statistics_are_those_of_the_norm(make, shape):
    torch.manual_seed(0)
    plain = make()
    with torch.no_grad():
        for parameter, first in zip(plain.parameters(), (0.5, -1.0), strict=False):
            parameter.copy_(torch.linspace(first, 2, 5))
    synchronised = copy.deepcopy(plain)
    synchronise_norms(synchronised)
    assert isinstance(synchronised, SyncNorm)
    x, grad = torch.randn(shape) * 2 + 1, torch.randn(shape)
    results = []
    for norm in (plain, synchronised):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(grad)
        results.append([y, leaf.grad, *(p.grad for p in norm.parameters()), *norm.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.eval()(x), synchronised.eval()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("one_process")
def test_an_input_of_the_wrong_shape_is_refused_as_ever():
    norm = nn.BatchNorm2d(2)
    synchronise_norms(norm)
    with pytest.raises(ValueError, match="expected 4D input"):
        norm(torch.zeros(2, 2))


def test_it_can_be_undone():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm1d(2))
    modules, keys, parameters = list(model), list(model.state_dict()), [id(p) for p in model.parameters()]
    synchronise_norms(model)
    synchronise_norms(model)
    assert all(isinstance(norm, SyncNorm) for norm in model[1:])
    assert list(model) == modules
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == parameters
    restore_norms(model)
    assert [type(m) for m in model] == [nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d]


class Closed(nn.BatchNorm2d):
    """As timm's `BatchNormAct2d` does, it never asks the forward of PyTorch's norms."""

    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True).relu()


class Open(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def test_a_norm_that_computes_by_itself_is_named(caplog):
    net = nn.Sequential(Closed(3), Open(3), nn.BatchNorm2d(3))
    synchronise_norms(net)
    assert [isinstance(norm, SyncNorm) for norm in net] == [False, True, True]
    assert "Closed normalises in its own forward" in caplog.text


@pytest.mark.usefixtures("one_process")
def test_a_look_asks_no_other_process(monkeypatch):
    net = nn.Sequential(nn.BatchNorm2d(3), Open(3), nn.SyncBatchNorm(3))
    x = torch.randn(4, 3, 2, 2)
    expected = nn.BatchNorm2d(3)(nn.BatchNorm2d(3)(nn.BatchNorm2d(3)(x)).relu())
    synchronise_norms(net)
    kinds = [type(norm) for norm in net]

    def refuse(*args, **settings):
        raise AssertionError("another process was asked")

    monkeypatch.setattr(dist, "all_reduce", refuse)
    with local_norms(net):
        torch.testing.assert_close(net(x), expected)
    assert [type(norm) for norm in net] == kinds
    with pytest.raises(AssertionError, match="another process"):
        net(x)


@pytest.mark.usefixtures("one_process")
def test_finding_out_how_an_output_is_read_asks_no_other_process(monkeypatch):
    class BySteps(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return torch.stack([self.norm(x), 2 * self.norm(x)])

    net = BySteps()
    synchronise_norms(net)
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **settings: pytest.fail("another process was asked"))
    layout_of_output(net, torch.randn(6, 3), num_samples=6)
    assert isinstance(net.norm, SyncNorm)
