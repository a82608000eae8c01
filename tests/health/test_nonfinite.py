import torch
from torch import nn

from shortback.health import first_nonfinite


class Divide(nn.Module):
    def forward(self, x):
        return x / 0


def test_the_first_culprit_is_named():
    x = torch.ones(2, 3)
    fine = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    assert first_nonfinite(fine, x) is None
    assert first_nonfinite(fine, x * float("nan")) == "the output of the data: the input batch"

    divided = nn.Sequential(nn.Linear(3, 3), Divide(), nn.Linear(3, 2))
    assert first_nonfinite(divided, x) == "the output of 1 (Divide)"
    assert not any(m._forward_hooks for m in divided.modules())

    for p in fine.parameters():
        p.grad = torch.zeros_like(p)
    fine[0].weight.grad[0] = float("inf")
    fine[2].weight.grad[0] = float("nan")
    assert first_nonfinite(fine, x) == "the gradient of 2.weight"  # nearest to the loss

    with torch.no_grad():
        fine[2].bias[0] = float("nan")
    assert first_nonfinite(fine, x) == "the weight 2.bias"
