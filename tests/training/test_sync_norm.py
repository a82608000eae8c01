"""On one process the synchronised norm must be PyTorch's; test_distributed has it on two."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from shortback.training.sync_norm import SyncNorm2d, restore_norms, synchronise_norms


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_outputs_gradients_and_statistics_are_those_of_batch_norm():
    torch.manual_seed(0)
    norms = nn.BatchNorm2d(5), SyncNorm2d(5)
    x = torch.randn(6, 5, 4, 3) * 2 + 1
    grad = torch.randn(6, 5, 4, 3)
    results = []
    for norm in norms:
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, 5))
            norm.bias.copy_(torch.linspace(-1, 1, 5))
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(grad)
        results.append([y, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert torch.allclose(norms[0].eval()(x), norms[1].eval()(x))


def test_it_can_be_undone():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    keys, parameters = list(model.state_dict()), [id(p) for p in model.parameters()]
    synchronise_norms(model, device="cpu")
    assert type(model[1]) is SyncNorm2d
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == parameters
    restore_norms(model)
    assert type(model[1]) is nn.BatchNorm2d
