"""Which weights are kept, and when there is no hope for better ones."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.errors import UserError
from shortback.training import JsonLines, choose_execution, fit
from shortback.training._evaluate import Evaluation
from shortback.training.best import BestWeights
from shortback.training.plan import Plan
from shortback.training.state import TrainState


def noted(results):
    """Whether each of some epochs was the best, and what the state says in the end."""
    best, state, improved = BestWeights(Path("nowhere")), TrainState(), []
    for accuracy, loss in results:
        improved.append(best.record(state, Evaluation(accuracy, loss, 10)))
        state.epoch += 1
    return improved, state


def test_accuracy_decides_and_loss_where_there_is_none():
    improved, state = noted([(0.5, 1.0), (0.4, 0.1), (0.5, 0.1), (0.7, 2.0)])
    assert improved == [True, False, False, True]
    assert (state.best_accuracy, state.best_loss, state.best_epoch) == (0.7, 2.0, 4)
    improved, state = noted([(None, 1.0), (None, 1.5), (None, 0.5)])
    assert improved == [True, False, True]
    assert (state.best_accuracy, state.best_loss, state.best_epoch) == (-1.0, 0.5, 3)


def test_a_plan_is_over_by_its_epochs_or_its_patience():
    plan = Plan(epochs=9, patience=2)
    assert [plan.is_over(epochs, best_epoch=best) for epochs, best in ((0, 0), (1, 1), (3, 2), (4, 2), (9, 9))] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert not Plan(epochs=9).is_over(8, best_epoch=0)


def data(number):
    rng = torch.Generator().manual_seed(number)
    return DataLoader(TensorDataset(torch.randn(number, 4, generator=rng), torch.arange(number) % 2), batch_size=8)


def trained(folder, *, epochs, validation, **settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)  # which changes nothing: the first epoch stays the best
    execution = choose_execution(compile="off", precision="fp32")
    return fit(
        net,
        data(32),
        validation=validation,
        epochs=epochs,
        optimizer=optimizer,
        folder=folder,
        execution=execution,
        **settings,
    )


def test_a_training_without_progress_ends(tmp_path):
    ended = trained(tmp_path / "run", epochs=20, validation=data(16), patience=3)
    assert ended.epochs == 4
    again = trained(tmp_path / "run", epochs=20, validation=data(16), patience=3, resume=True)
    assert (again.epochs, again.best_val_accuracy) == (4, ended.best_val_accuracy)
    further = trained(tmp_path / "run", epochs=20, validation=data(16), patience=5, resume=True)
    assert further.epochs == 6
    with pytest.raises(UserError, match="give images to validate on"):
        trained(tmp_path / "other", epochs=20, validation=None, patience=3)


def test_more_than_one_epoch_is_kept(tmp_path):
    """The three best of seven, the earlier of equal ones; what an interrupted epoch left is written over or deleted."""
    best, state, net = BestWeights(tmp_path, keep=3), TrainState(), nn.Linear(1, 1, bias=False)
    for epoch, accuracy in enumerate((0.1, 0.5, 0.3, 0.5, 0.2, 0.9, 0.4), start=1):
        net.weight.data.fill_(epoch)
        before = TrainState.from_dict(state.to_dict())
        for each in (before, state):  # killed before its checkpoint, then again
            best.record(each, Evaluation(accuracy, 1.0, 10))
            best.save(net, each)
        state.epoch += 1
    assert state.kept == [(6, 0.9), (2, 0.5), (4, 0.5)]
    weights = {file.name: load_file(file)["weight"].item() for file in tmp_path.iterdir()}
    assert weights == {"best.safetensors": 6} | {f"best-epoch-{epoch}.safetensors": epoch for epoch in (2, 4, 6)}


def test_losses_choose_where_there_is_no_accuracy(tmp_path):
    best, state = BestWeights(tmp_path, keep=2), TrainState()
    for loss in (3.0, 1.0, 2.0):
        best.record(state, Evaluation(None, loss, 10))
        best.save(nn.Linear(1, 1), state)
        state.epoch += 1
    assert [epoch for epoch, _ in state.kept] == [2, 3]


def test_a_loss_that_is_no_number_is_none_to_be_kept_for(caplog):
    """The last are kept until there is one, and none is better than a number."""
    improved, state = noted([(None, math.nan), (None, math.inf), (None, 2.0), (None, math.nan), (None, 3.0)])
    assert improved == [True, True, True, False, False]
    assert (state.best_loss, state.best_epoch) == (2.0, 3)
    assert "epoch 2: the loss on the validation split is inf: look at its inputs and targets" in caplog.text
    improved, state = noted([(0.5, math.nan), (0.4, 1.0)])
    assert improved == [True, False]
    assert state.kept == [(1, 0.5)]


def test_a_regression_whose_validation_is_no_number_ends_and_goes_on(tmp_path):
    def train(**settings):
        torch.manual_seed(0)
        x, y = torch.randn(16, 4), torch.randn(16, 1)
        loader = DataLoader(TensorDataset(x, y), batch_size=8)
        broken = DataLoader(TensorDataset(x, y * math.nan), batch_size=8)
        net, execution = nn.Linear(4, 1), choose_execution(compile="off", precision="fp32")
        loss, loggers = nn.MSELoss(), [JsonLines(tmp_path / "metrics.jsonl")]
        settings |= {"folder": tmp_path, "execution": execution, "loss": loss, "loggers": loggers}
        return fit(net, loader, validation=broken, epochs=2, **settings)

    assert train()[-2:] == (None, 2)
    assert train(resume=True)[-2:] == (None, 2)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert '"val_loss": null' in text
    assert "NaN" not in text


def branched():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    return sb.attach(net, at=["0"], sample=torch.zeros(2, 4))


def test_heads_are_kept_with_the_weights_and_not_missed_where_an_earlier_version_kept_none(tmp_path):
    net, best, state = branched(), BestWeights(tmp_path), TrainState()
    best.record(state, Evaluation(0.5, 1.0, 10))
    best.save(net, state)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    moved = {name: value.clone() for name, value in net.heads.state_dict().items()}
    heads = best.heads.rename(tmp_path / "away")
    best.load_into(net)
    assert all(torch.equal(value, moved[name]) for name, value in net.heads.state_dict().items())
    heads.rename(best.heads)
    best.load_into(net)
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    assert set(load_file(best.file)) == set(net.model.state_dict())  # the network's own, as ever


def test_the_last_is_the_best_without_validation(tmp_path):
    assert trained(tmp_path / "run", epochs=2, validation=None).best_epoch == 2
    with pytest.raises(UserError, match="keep_best=2 needs a validation split: give images to validate on"):
        trained(tmp_path / "other", epochs=2, validation=None, keep_best=2)


def test_weights_that_are_one_are_written_and_read(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.again = self.first
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.again(self.first(x)))

    net = Tied()
    loader = data(16)
    fit(net, loader, epochs=1, folder=tmp_path, execution=choose_execution(compile="off"), loggers=[])
    written = load_file(tmp_path / "checkpoints" / "best.safetensors")
    assert torch.equal(written["again.weight"], net.first.weight)
    assert torch.equal(written["first.weight"], net.first.weight)
