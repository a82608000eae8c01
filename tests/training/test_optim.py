import copy

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.errors import UserError
from shortback.training import WarmupCosine, build_optimizer
from shortback.training.optim import check_optimizer, check_rates, shares_of_groups


def test_warmup_and_cosine_by_hand():
    rate = WarmupCosine(peak=0.4, total_steps=8, warmup_steps=4, final=0.0)
    expected = [0.1, 0.2, 0.3, 0.4, 0.4, 0.2 * (1 + 0.5**0.5), 0.2, 0.2 * (1 - 0.5**0.5)]
    assert [rate(step) for step in range(8)] == pytest.approx(expected)
    assert WarmupCosine(peak=1.0, total_steps=10, final=0.1)(9) > 0.1


def test_a_warmup_as_long_as_the_training_is_refused():
    with pytest.raises(ValueError, match="must be shorter"):
        WarmupCosine(peak=1.0, total_steps=5, warmup_steps=5)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weight_decay_is_on_weights_alone(kind):
    model = sb.create_model("resnet20", neuron=sb.PLIF)
    decayed, free = build_optimizer(model, kind=kind, weight_decay=1e-3).param_groups
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in free["params"]} == {0, 1}  # learned decays, norms and biases
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-3, 0.0)
    assert sum(len(g["params"]) for g in (decayed, free)) == len(list(model.parameters()))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="must be one of sgd, adamw"):
        build_optimizer(torch.nn.Linear(1, 1), kind="lion")


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embed, self.bias_table = nn.Parameter(torch.zeros(1, 4, 2)), nn.Parameter(torch.zeros(3, 2))
        self.proj = nn.Linear(2, 2)

    def no_weight_decay(self):
        return {"bias_table"}


def test_what_a_neuron_learns_and_what_a_module_exempts_is_not_decayed():
    snntorch = pytest.importorskip("snntorch")
    learned = {"learn_beta": True, "learn_threshold": True}
    spikes = snntorch.Leaky(beta=torch.full((2, 1), 0.9), threshold=torch.ones(2, 1), **learned)
    net = nn.Sequential(Attention(), spikes)
    decayed, free = build_optimizer(net, weight_decay=1e-3).param_groups
    assert [id(p) for p in decayed["params"]] == [id(net[0].proj.weight)]
    assert {id(p) for p in free["params"]} == {id(p) for p in net.parameters()} - {id(net[0].proj.weight)}


class Decaying(nn.Module):
    """A neuron of one's own, with a decay for each channel of images."""

    def __init__(self):
        super().__init__()
        self.decay, self.mix = nn.Parameter(torch.zeros(1, 4, 1, 1)), nn.Parameter(torch.zeros(4, 4))


def test_a_number_for_each_channel_is_not_decayed_and_thin_convolutions_are():
    net = nn.Sequential(Decaying(), nn.Conv2d(1, 4, 1), nn.Linear(4, 1))
    decayed, free = build_optimizer(net, weight_decay=1e-3).param_groups
    assert {id(p) for p in decayed["params"]} == {id(p) for p in (net[0].mix, net[1].weight, net[2].weight)}
    assert id(net[0].decay) in {id(p) for p in free["params"]}


def test_groups_keep_their_proportion():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 1e-4}, {"params": [b], "lr": 0.1}], lr=1.0)
    assert shares_of_groups(optimizer) == pytest.approx([1e-3, 1.0])
    assert shares_of_groups(torch.optim.SGD([a], lr=0.0)) == [1.0]


def test_an_optimizer_that_does_not_move_what_is_trained_is_refused():
    model = sb.create_model("vgg11", width=0.125, num_steps=1)
    before = torch.optim.SGD(model.parameters(), lr=0.1)
    net = sb.attach(model, at="stages", sample=torch.zeros(2, 3, 16, 16))
    with pytest.raises(UserError, match=r"lacks the heads of the branches \(0\.weight"):
        check_optimizer(before, net)
    check_optimizer(torch.optim.SGD(net.heads.parameters(), lr=0.1), net)  # the rest is frozen on purpose
    with pytest.raises(UserError, match="do not belong to the network in training"):
        check_optimizer(torch.optim.SGD(copy.deepcopy(net).parameters(), lr=0.1), net)
    of_the_loss = nn.Parameter(torch.zeros(2))
    check_optimizer(torch.optim.SGD([*net.parameters(), of_the_loss], lr=0.1), net)


def test_rates_that_are_none_are_refused():
    check_rates(0.1, None)
    check_rates(1, lambda step: 0.1)
    for lr in ("0.1", -1.0, float("nan"), None, True):
        with pytest.raises(ValueError, match=r"lr=.*: must be a number, 0 or more"):
            check_rates(lr, None)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(
        ValueError, match=r"learning_rate=a StepLR: must be a function of the optimizer step.*lambda step"
    ):
        check_rates(0.1, torch.optim.lr_scheduler.StepLR(optimizer, 1))
    with pytest.raises(ValueError, match=r"learning_rate=0\.1: must be a function .* lambda step: 0\.1"):
        check_rates(0.1, 0.1)
