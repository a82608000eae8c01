"""Parts of a batch, batches and rows: each weighs by what the loss of it is a mean over."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from shortback.losses import CrossEntropy, ShortcutLoss
from shortback.schedules import Adaptive
from shortback.training import evaluate
from shortback.training.weighing import check_parts, counts_mask, sum_of, weight_of, zero_gradient_without_weight
from tests.training.test_engine import weights

WEIGHED = {
    "weights of classes": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0, 2.0, 0.5])),
    "ignored labels": nn.CrossEntropyLoss(ignore_index=2),
    "both, smoothed": nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 2.0, 0.5]), ignore_index=0, label_smoothing=0.1),
}


@pytest.mark.parametrize("loss", WEIGHED.values(), ids=WEIGHED)
def test_parts_of_a_batch_weigh_by_what_the_loss_is_a_mean_over(make_trainer, loss):
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    x, y = torch.randn(10, 1, 12, 12), torch.tensor([0, 0, 1, 2, 2, 2, 1, 3, 0, 3])
    gradients, sums = [], []
    for parts in (1, 3):
        trainer = make_trainer(
            network=copy.deepcopy(network), branches=False, accumulate=parts, loss=ShortcutLoss(main=loss)
        )
        sums.append(trainer._forward_backward(x, y, 0.0, by_branch=False))
        gradients.append(trainer.net[1].weight.grad.clone())
    torch.testing.assert_close(*gradients)
    assert sums[1].mean_loss.item() == pytest.approx(loss(network(x), y).item(), rel=1e-6)


def test_losses_that_weigh_classes_differently_are_not_taken_in_parts(make_trainer):
    loss = ShortcutLoss(main=nn.CrossEntropyLoss(), branch=WEIGHED["weights of classes"], combine="additive")
    with pytest.raises(ValueError, match="accumulate=2: main and branch weight classes differently"):
        make_trainer(loss=loss, accumulate=2)
    make_trainer(loss=loss)
    make_trainer(loss=loss, accumulate=2, branches=False)


def test_weights_are_compared_where_they_are_moved_to(make_trainer):
    """They may be on several devices before."""

    class Elsewhere(nn.CrossEntropyLoss):
        def to(self, device):
            self.weight = torch.ones(4, device=device)
            return self

    main, branch = Elsewhere(torch.ones(4)), Elsewhere(torch.ones(4, device="meta"))
    make_trainer(loss=ShortcutLoss(main=main, branch=branch, combine="additive"), accumulate=2)


NOTHING = {
    "ignored": nn.CrossEntropyLoss(ignore_index=2),
    "ignored, smoothed": nn.CrossEntropyLoss(ignore_index=2, label_smoothing=0.1),
    "of no weight": nn.CrossEntropyLoss(torch.ones(10).index_fill(0, torch.tensor(2), 0)),
    "of no weight, smoothed": nn.CrossEntropyLoss(
        torch.ones(10).index_fill(0, torch.tensor(2), 0), label_smoothing=0.1
    ),
}


@pytest.mark.parametrize("combine", ["logits", "additive"])
@pytest.mark.parametrize("loss", NOTHING.values(), ids=NOTHING)
def test_a_part_of_which_no_label_counts_adds_nothing(make_trainer, make_network, loss, combine):
    """Its mean loss is no number, nor is that of the gradient."""
    network, gradients = make_network(norm="none"), []
    x, y = torch.randn(8, 1, 12, 12), torch.tensor([0, 3, 1, 1, 2, 2, 2, 2])
    for parts, number in ((1, 4), (2, 8)):
        trainer = make_trainer(
            network=copy.deepcopy(network), accumulate=parts, loss=ShortcutLoss(main=loss, combine=combine)
        )
        trainer.net.load_state_dict(gradients[0][2] if gradients else trainer.net.state_dict())
        sums = trainer._forward_backward(x[:number], y[:number], 0.5, by_branch=True)
        named = {name: p.grad for name, p in trainer.net.named_parameters()}
        gradients.append((sums, named, trainer.net.state_dict()))
    (alone, one, _), (both, two, _) = gradients
    torch.testing.assert_close(one, two)
    assert both.mean_loss.item() == pytest.approx(alone.mean_loss.item(), rel=1e-6)
    torch.testing.assert_close(alone.branches[0], both.branches[0])


class Once:
    """One batch."""

    def __init__(self, *batch):
        self.batch = batch

    def __len__(self):
        return 1

    def epoch(self, epoch, *, start=0):
        return iter([self.batch][start:])


@pytest.mark.parametrize("loss", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("branches", [True, False])
def test_a_batch_of_which_no_label_counts_trains_nothing(make_trainer, rows, loss, branches):
    log = rows()
    trainer = make_trainer(
        loss=ShortcutLoss(main=loss),
        branches=branches,
        schedule=Adaptive(),
        loggers=[log],
        log_every=1,
        watch_every=1,
    )
    x, _ = next(iter(trainer.train.epoch(0)))
    trainer.train = Once(x, torch.full((len(x),), 2))
    trainer.plan = dataclasses.replace(trainer.plan, epochs=1)
    trainer.fit()
    step, epoch = log.rows
    assert (step["kind"], step["gradient_norm"], step["loss"], step["main_loss"]) == ("step", 0, 0, 0)
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None:
        assert (step["accuracy"], step["sum_accuracy"], epoch["accuracy"]) == (None, None, None)
    if branches:
        assert set(step["branches"]["branch_loss"].values()) == {0}
        assert math.isfinite(trainer.state.main_over_branches)
    json.dumps(log.rows, allow_nan=False)


@pytest.mark.parametrize("accumulate", [3, 4])
def test_parts_of_a_batch_weigh_by_their_samples(make_trainer, accumulate):
    """A batch of 10 in 4 parts is 3, 3, 3 and 1 samples; the gradient is that of their mean, as of the whole batch."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    x, y = torch.randn(10, 1, 12, 12), torch.arange(10) % 4
    gradients = []
    for parts in (1, accumulate):
        trainer = make_trainer(network=copy.deepcopy(network), branches=False, accumulate=parts)
        trainer._forward_backward(x, y, 0.0, by_branch=False)
        gradients.append(trainer.net[1].weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_accumulation_has_the_gradient_of_the_batch(make_trainer, make_network, tmp_path):
    # Without batch norm, whose statistics are those of a part, the parts add up to the whole.
    steps = []
    for accumulate in (1, 2):
        trainer = make_trainer(
            folder=tmp_path / str(accumulate),
            network=make_network(norm="none"),
            epochs=1,
            accumulate=accumulate,
            log_every=1,
        )
        trainer._step(*next(iter(trainer.train.epoch(0))))
        steps.append(weights(trainer))
    for name, value in steps[0].items():
        torch.testing.assert_close(value, steps[1][name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("loss", WEIGHED.values(), ids=WEIGHED)
def test_a_split_in_batches_is_judged_as_in_one(loss):
    """The last batch has no label that counts with one of the losses; a hit on such a label is none."""
    torch.manual_seed(0)
    net = nn.Linear(6, 4)
    x, y = torch.randn(10, 6), torch.tensor([0, 0, 1, 2, 3, 2, 1, 3, 2, 2])
    found = evaluate(net, zip(x.split(4), y.split(4), strict=True), loss=loss)
    counts = y != loss.ignore_index
    with torch.no_grad():
        assert found.loss == pytest.approx(loss(net(x), y).item(), rel=1e-6)
        hits = (net(x).argmax(1) == y)[counts]
    assert (found.accuracy, found.num_images) == (pytest.approx(hits.double().mean().item()), counts.sum())


@pytest.mark.parametrize("loss", WEIGHED.values(), ids=WEIGHED)
def test_the_row_of_an_epoch_is_a_mean_over_what_counts(make_trainer, rows, loss):
    """Four batches, with weights that do not move: what PyTorch has of all 64 images at once."""
    log = rows()
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    trainer = make_trainer(
        network=network, branches=False, loss=ShortcutLoss(main=loss), lr=1e-12, epochs=1, loggers=[log], accumulate=2
    )
    x, y = (torch.cat(each) for each in zip(*trainer.train.epoch(0), strict=True))
    trainer.fit()
    row = log.rows[-1]
    counts = y != loss.ignore_index
    with torch.no_grad():
        hits = (network(x).argmax(1) == y)[counts]
        assert row["loss"] == row["main_loss"] == pytest.approx(loss(network(x), y).item(), rel=1e-5)
    assert row["accuracy"] == row["sum_accuracy"] == pytest.approx(hits.double().mean().item())
    json.dumps(row, allow_nan=False)


def test_probabilities_have_no_label_that_is_ignored():
    net, x, y = nn.Linear(6, 4), torch.randn(5, 6), torch.softmax(torch.randn(5, 4), 1)
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 2.0, 0.5]))
    found = evaluate(net, [(x[:2], y[:2]), (x[2:], y[2:])], loss=loss)
    with torch.no_grad():
        assert found.loss == pytest.approx(loss(net(x), y).item(), rel=1e-6)
        assert found.accuracy == pytest.approx((net(x).argmax(1) == y.argmax(1)).double().mean().item())


WEIGHTS = torch.tensor([1.0, 9.0, 2.0])


@pytest.mark.parametrize(
    ("loss", "weight", "counts"),
    [
        (CrossEntropy(), 4, None),
        (nn.MultiMarginLoss(), 4, None),
        (nn.CrossEntropyLoss(), 4, [True] * 4),
        (nn.CrossEntropyLoss(ignore_index=1), 2, [True, False, False, True]),
        (nn.CrossEntropyLoss(WEIGHTS), 1 + 9 + 9 + 2, [True] * 4),
        (nn.NLLLoss(WEIGHTS, ignore_index=2), 1 + 9 + 9, [True, True, True, False]),
    ],
)
def test_what_a_mean_is_over_by_hand(loss, weight, counts):
    target = torch.tensor([0, 1, 1, 2])
    for kind in (torch.long, torch.uint8):
        assert float(weight_of(target.to(kind), loss=loss)) == weight
        found = counts_mask(target.to(kind), loss=loss)
        assert found is None if counts is None else found.tolist() == counts
    out = torch.log_softmax(torch.randn(4, 3), 1)
    summed = copy.copy(loss)
    if isinstance(loss, nn.Module):  # PyTorch's own sum
        summed.reduction = "sum"
        assert float(loss(out, target) * weight) == pytest.approx(float(summed(out, target)), rel=1e-5)


def test_the_label_that_is_left_out_is_none_of_another_size():
    target = torch.tensor([156, 3], dtype=torch.uint8)
    assert counts_mask(target, loss=nn.CrossEntropyLoss()).tolist() == [True, True]
    assert counts_mask(torch.tensor([-100, 3], dtype=torch.int8), loss=nn.CrossEntropyLoss()).tolist() == [False, True]


def test_a_weight_that_is_no_number_is_not_taken_for_nothing():
    weight = torch.tensor(torch.nan)
    assert sum_of(torch.tensor(1.0), weight).isnan()
    outputs = torch.ones(2, 3, requires_grad=True)
    zero_gradient_without_weight(outputs, weight)
    outputs.sum().backward()
    assert torch.equal(outputs.grad, torch.ones(2, 3))


def test_labels_that_only_one_of_the_losses_ignores_are_refused_in_parts():
    loss = ShortcutLoss(main=CrossEntropy(), branch=nn.CrossEntropyLoss(ignore_index=0), combine="additive")
    with pytest.raises(ValueError, match="give both losses the same weight and ignore_index"):
        check_parts(loss, 2)
    check_parts(loss, 1)
