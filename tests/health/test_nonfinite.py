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
    assert first_nonfinite(fine, x * float("nan")) == "the input batch"

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


class Calls(nn.Module):
    """Calls something between two layers, and after the last."""

    def __init__(self, between, after):
        super().__init__()
        self.between, self.after = between, after
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.after(self.b(self.between(self.a(x))))


class WithState(nn.Module):
    def forward(self, x):
        return (x >= 0).float(), {"membrane": x / 0}


def test_what_no_module_returns_is_found_too():
    x = torch.ones(2, 3)
    same = nn.Identity()
    assert first_nonfinite(Calls(same, same), x) is None
    assert first_nonfinite(Calls(lambda h: h / 0, same), x) == "the input of b (Linear)"
    assert first_nonfinite(Calls(same, lambda h: (-h.abs()).log()), x) == "the output of the network (Calls)"
    cell = WithState()
    spiking = Calls(lambda h: cell(h)[0], same)
    spiking.cell = cell
    assert first_nonfinite(spiking, x) == "the output of cell (WithState)"


def test_a_mask_of_minus_infinity_is_no_mistake():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1)

        def forward(self, x):
            mask = torch.full((2, 2), float("-inf")).triu(1)
            return self.attention(x, x, x, None, True, mask)[0]

    assert first_nonfinite(Attends(), torch.ones(2, 3)) is None
