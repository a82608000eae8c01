import functools
import math

import pytest
import torch
from torch import nn

from shortback import attach
from shortback.health import branch_share, first_layer_balance, main_over_branches, measure, settled_ratio
from shortback.health.measurement import MAIN
from shortback.losses import ShortcutLoss
from shortback.outputs import Outputs
from shortback.schedules import Adaptive


class TwoPaths(nn.Module):
    """Logits 2 w x and branch logits 3 w x, so that both gradients by w are known."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[1.0], [-1.0]]))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x):
        h = x @ self.w.T
        self.norm(x)
        return Outputs(2 * h, {"a": 3 * h}) if self.training else Outputs(2 * h, {})


@pytest.mark.parametrize(("combine", "coefficient"), [("additive", 0.5), ("convex", 0.25), ("additive", 0.0)])
def test_the_share_by_hand(combine, coefficient):
    net, x, y = TwoPaths(), torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])

    def norm(scale):
        h = (scale * x @ net.w.detach().T).requires_grad_()
        nn.functional.cross_entropy(h, y).backward()
        return (scale * h.grad.T @ x).norm().item()

    main, branch = norm(2), coefficient * norm(3)
    main *= 1 - coefficient if combine == "convex" else 1
    share = branch_share(net, x, y, loss=ShortcutLoss(combine=combine), coefficient=coefficient)
    assert share == pytest.approx(branch / (main + branch), rel=1e-5)


@pytest.mark.parametrize("coefficient", [0.0, 0.25, 1.0, 3.0])
def test_the_share_of_added_logits_by_hand(coefficient):
    """One loss of 2 w x + c 3 w x: both outputs have its gradient d, so the first layer gets 2 d x and 3 c d x."""
    net, x, y = TwoPaths(), torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    loss = ShortcutLoss()
    balance = first_layer_balance(net, x, y, loss=loss, coefficient=coefficient)
    logits = (2 + 3 * coefficient) * x.double() @ net.w.detach().double().T
    delta = (torch.softmax(logits, 1) - nn.functional.one_hot(y, 2)) / 2
    reaches = (delta.T @ x.double()).norm().item()
    assert balance.main == pytest.approx(2 * reaches, rel=1e-5)
    assert balance.branches == pytest.approx(3 * coefficient * reaches, rel=1e-5)
    if coefficient:
        ratio = main_over_branches(net, x, y, loss=loss, coefficient=coefficient)
        assert ratio == pytest.approx(2 / 3, rel=1e-5)


def test_it_leaves_no_trace():
    net = TwoPaths().eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    branch_share(
        net,
        torch.randn(4, 1, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 0, 1]),
        loss=ShortcutLoss(),
        coefficient=1.0,
    )
    assert not net.training
    assert net.w.grad is None
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_without_branches_it_is_zero():
    linear = nn.Linear(1, 2)
    assert branch_share(linear, torch.ones(2, 1), torch.tensor([0, 1]), loss=ShortcutLoss(), coefficient=1.0) == 0


@pytest.mark.parametrize("combine", ["logits", "additive", "convex"])
def test_the_adaptive_coefficient_gives_the_share_asked_for(combine):
    net, x, y = TwoPaths(), torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    loss = ShortcutLoss(combine=combine)
    schedule = Adaptive(start=0.7, end=0.1, combine=combine)
    for progress, share in ((0.0, 0.7), (0.5, 0.4), (1.0, 0.1)):
        at = functools.partial(schedule, progress)
        coefficient = at(settled_ratio(net, x, y, loss=loss, coefficient_of=at))
        assert branch_share(net, x, y, loss=loss, coefficient=coefficient) == pytest.approx(share, rel=1e-4)


def test_without_branches_the_ratio_is_infinite():
    linear = nn.Linear(1, 2)
    assert main_over_branches(linear, torch.ones(2, 1), torch.tensor([0, 1]), loss=ShortcutLoss()) == math.inf


class Backwards(nn.Module):
    """Its last layer is registered first."""

    def __init__(self):
        super().__init__()
        self.fc, self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 6), nn.Linear(6, 6)
        self.first, self.second = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.fc(self.second(self.b(self.first(self.a(x)))))


def test_the_first_layer_is_the_one_called_first():
    torch.manual_seed(0)
    x, y, loss = torch.randn(4, 6), torch.arange(4), ShortcutLoss()
    net = attach(Backwards(), at=["first"], sample=x)
    balance = first_layer_balance(net, x, y, loss=loss, coefficient=0.5)
    layer = measure(net, x, y, loss=loss, coefficient=0.5).layers[0]
    assert layer.name == "a"
    assert balance == pytest.approx((layer.terms[MAIN], layer.branch_norm))
    assert 0 < main_over_branches(net, x, y, loss=loss) < math.inf


def test_where_all_is_frozen_nothing_reaches_it():
    x, y = torch.randn(4, 6), torch.arange(4)
    net = attach(Backwards(), at=["first"], sample=x)
    net.requires_grad_(False)
    assert first_layer_balance(net, x, y, loss=ShortcutLoss(), coefficient=0.5) == (0, 0)


class Cut(TwoPaths):
    """Nothing of the main output reaches the weight."""

    def forward(self, x):
        out = super().forward(x)
        return out._replace(logits=out.logits.detach() + 0 * out.logits) if self.training else out


@pytest.mark.parametrize("combine", ["logits", "additive", "convex"])
def test_branches_count_where_the_main_gradient_is_0(combine):
    net, x, y = Cut(), torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    at = functools.partial(Adaptive(smallest=0.2, combine=combine), 0.5)
    ratio = settled_ratio(net, x, y, loss=ShortcutLoss(combine=combine), coefficient_of=at)
    assert ratio == 0
    assert at(ratio) == pytest.approx(0.1)


@pytest.mark.parametrize(("combine", "coefficient"), [("logits", 0.0), ("additive", -1.0), ("convex", 1.0)])
def test_a_coefficient_by_which_no_norm_can_be_divided_is_refused(combine, coefficient):
    x, y = torch.ones(2, 1), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=f"coefficient={coefficient:g}: must be above 0"):
        main_over_branches(nn.Linear(1, 2), x, y, loss=ShortcutLoss(combine=combine), coefficient=coefficient)
