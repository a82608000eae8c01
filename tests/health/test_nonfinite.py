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
        return (x >= 0).float(), {"membrane": x.abs() / 0}


def test_what_no_module_returns_is_found_too():
    x = torch.ones(2, 3)
    same = nn.Identity()
    assert first_nonfinite(Calls(same, same), x) is None
    assert first_nonfinite(Calls(lambda h: h.abs() / 0, same), x) == "the input of b (Linear)"
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


class Masks(nn.Module):
    """Causal scores of attention: later ones are -inf."""

    def forward(self, h):
        return h @ h.T + torch.full((len(h), len(h)), float("-inf")).triu(1)


class Scores(nn.Module):
    """The same, made by a module with parts, alone or beside what it is made of."""

    def __init__(self, *, with_input):
        super().__init__()
        self.q, self.with_input = nn.Linear(3, 3), with_input

    def forward(self, h):
        scores = Masks().forward(self.q(h))
        return (scores, h) if self.with_input else scores


class Weighs(nn.Module):
    def __init__(self, scores):
        super().__init__()
        self.scores, self.softmax, self.out = scores, nn.Softmax(-1), nn.Linear(3, 2)

    def forward(self, x):
        scores = self.scores(x)
        return self.out(self.softmax(scores[0] if isinstance(scores, tuple) else scores) @ x)


def test_masked_scores_are_no_mistake():
    x = torch.rand(4, 3)
    for scores in (Masks().forward, Scores(with_input=False), Scores(with_input=True)):
        net = Weighs(scores)
        assert first_nonfinite(net, x) is None
        net(x).sum().backward()
        net.out.weight.grad[0, 0] = torch.nan
        assert first_nonfinite(net, x) == "the gradient of out.weight"
    assert first_nonfinite(Weighs(Masks()), x) == "the output of scores (Masks)"  # all that it does


def test_behind_a_mask_the_culprit_is_named():
    x = torch.rand(4, 3)
    assert first_nonfinite(Weighs(lambda h: h @ h.T - torch.inf), x) == "the output of softmax (Softmax)"
    assert first_nonfinite(Weighs(lambda h: Masks().forward(h) * 0), x) == "the input of softmax (Softmax)"


class Repairs(nn.Module):
    def forward(self, h):
        return h.nan_to_num(posinf=1.0)


def test_an_input_that_a_module_makes_something_finite_of_is_none():
    x, same = torch.ones(2, 3), nn.Identity()
    net = Calls(lambda h: h.abs() / 0, same)
    net.b = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert first_nonfinite(net, x) == "the input of b (Sequential)"  # and not of what is in it
    net.b = Repairs()
    assert first_nonfinite(net, x) is None


def test_a_module_that_raised_does_not_count():
    class Falls(nn.Module):
        def forward(self, h):
            raise RuntimeError("not today")

    falls, same = Falls(), nn.Identity()

    def between(h):
        try:
            return falls(h / 0)
        except RuntimeError:
            return h

    net = Calls(between, same)
    net.falls = falls
    assert first_nonfinite(net, torch.ones(2, 3)) is None
    net.after = Divide()
    assert first_nonfinite(net, torch.ones(2, 3)) == "the output of after (Divide)"


def test_the_batch_stays_as_it_was():
    x = -torch.ones(2, 3)
    assert first_nonfinite(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), x) is None
    assert torch.equal(x, -torch.ones(2, 3))
