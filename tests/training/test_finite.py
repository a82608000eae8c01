import math

import pytest
import torch
from torch import nn

from shortback.neurons import LIF
from shortback.training import NonFiniteError
from shortback.training.finite import FiniteCheck


def backward(net, factor):
    """A step whose gradients of the second layer are those of a loss that is multiplied by a factor."""
    net.zero_grad()
    x = torch.ones(2, 3)
    hidden = net[0](x)
    loss = net[1](hidden).sum() + 0.0 * hidden.sum()
    loss.backward()
    net[1].weight.grad.mul_(factor)
    norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
    return x, loss.detach(), norm


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))


def test_at_once_it_stops_before_the_update(net):
    check = FiniteCheck(net, later=False)
    x, loss, norm = backward(net, 1.0)
    check.look(x, step=1, loss=loss, norm=norm, coefficient=0.5)
    x, loss, norm = backward(net, math.nan)
    with pytest.raises(NonFiniteError, match=r"^step 2: .*coefficient 0.5; first not finite: the gradient of 1.weight"):
        check.look(x, step=2, loss=loss, norm=norm, coefficient=0.5)


def test_later_it_stops_one_step_on_and_names_the_step_and_gradient_that_were_first(net):
    check = FiniteCheck(net, later=True)
    for step, factor in ((1, 1.0), (2, math.inf)):
        x, loss, norm = backward(net, factor)
        check.look(x, step=step, loss=loss, norm=norm, coefficient=0.5)
    with torch.no_grad():
        net[0].weight.fill_(math.nan)  # as the update does
    x, loss, norm = backward(net, 1.0)
    with pytest.raises(NonFiniteError, match=r"^step 2: .*gradient norm inf.*the gradient of 1.weight"):
        check.look(x, step=3, loss=loss, norm=norm, coefficient=0.5)


def test_later_a_loss_that_is_no_number_is_named(net):
    check = FiniteCheck(net, later=True)
    x, _, norm = backward(net, 1.0)
    check.look(x, step=1, loss=torch.tensor(math.nan), norm=norm, coefficient=0.5)
    with pytest.raises(NonFiniteError, match=r"step 1: loss nan.*the loss itself"):
        check.finish()
    check.finish()  # there is nothing left to look at


def test_a_run_that_looks_later_ends_the_same_and_leaves_no_spoiled_checkpoint(make_trainer, tmp_path):
    trainer = make_trainer(epochs=2, checkpoint_every=1)
    trainer.finite = FiniteCheck(trainer.net, later=True)
    whole = trainer.loss

    class Broken:
        main = whole.main
        branch, combine = whole.branch, whole.combine

        def __call__(self, outputs, target, *, coefficient, by_branch=True):
            terms = whole(outputs, target, coefficient=coefficient, by_branch=by_branch)
            return terms._replace(total=terms.total * (math.nan if trainer.state.step == 2 else 1.0))

        def combined_logits(self, outputs, *, coefficient):
            return whole.combined_logits(outputs, coefficient=coefficient)

    trainer.loss = Broken()
    with pytest.raises(NonFiniteError, match="step 3: loss nan"):
        trainer.fit()
    saved = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert saved["state"]["step"] == 2
    assert all(value.isfinite().all() for value in saved["net"].values())


@pytest.mark.parametrize("later", [False, True])
def test_what_spikes_hide_in_the_data_is_found(later):
    """A neuron makes zeros of values that are none: loss and gradient stay finite, the statistics before it do not."""
    net = nn.Sequential(nn.BatchNorm1d(3).requires_grad_(False), LIF(1, backend="reference"), nn.Linear(3, 2))
    x = torch.randn(6, 3)
    x[4, 1] = torch.nan
    check = FiniteCheck(net, later=later)
    loss = net(x).square().mean()
    loss.backward()
    assert loss.isfinite()
    with pytest.raises(NonFiniteError, match="step 7: the input batch holds values that are not finite: check the"):
        (
            check.look(x, step=7, loss=loss.detach(), norm=torch.tensor(1.0), coefficient=0.0),
            check.finish(),
        )


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(("clip_norm", "advised"), [(None, "1"), (5.0, "1"), (1.0, "0.1"), (0.5, "0.05")])
def test_a_smaller_norm_than_that_clipped_to_is_advised(net, later, clip_norm, advised):
    check = FiniteCheck(net, later=later, clip_norm=clip_norm)
    x, loss, norm = backward(net, math.nan)
    message = rf"clip_norm={advised} \(on the command line -s optimizer.clip_norm={advised}\), or a wider surrogate$"
    with pytest.raises(NonFiniteError, match=message):  # noqa: PT012 (either of the two raises)
        check.look(x, step=1, loss=loss, norm=norm, coefficient=0.5)
        check.finish()
