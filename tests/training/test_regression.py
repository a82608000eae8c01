"""Targets that are numbers, and several labels at once: no accuracy, the best weights by loss, and what is refused."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.training import choose_execution, evaluate, fit

LOSSES = {"mse": nn.MSELoss(), "labels": nn.BCEWithLogitsLoss()}


def data(kind, count=64, outputs=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, 12, 12, generator=generator)
    y = x.flatten(1)[:, :outputs]
    y = (y > 0).float() if kind == "labels" else y
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)


def network(outputs=3):
    torch.manual_seed(0)
    net = sb.create_model("resnet20", num_classes=outputs, num_steps=2, in_channels=1, width=0.25)
    return sb.attach(net, at="stages", sample=torch.zeros(2, 1, 12, 12))


def execution():
    return choose_execution(precision="fp32", compile="off")


class Rows:
    """A logger that keeps them."""

    def __init__(self):
        self.seen = []

    def start(self, **_): ...

    def log(self, row):
        self.seen.append(row)

    def advance(self, step): ...

    def close(self): ...


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("combine", ["logits", "additive"])
def test_the_best_weights_are_those_of_the_lowest_validation_loss(tmp_path, kind, combine):
    loss = sb.ShortcutLoss(main=LOSSES[kind], combine=combine)
    net, batches, rows = network(), data(kind), Rows()
    result = fit(
        net,
        batches,
        validation=batches,
        epochs=4,
        lr=0.3,
        loss=loss,
        folder=tmp_path,
        execution=execution(),
        loggers=[rows],
    )
    losses = [row["val_loss"] for row in rows.seen if row["kind"] == "epoch"]
    assert result.best_val_loss == min(losses)
    assert all(row.get("accuracy") is None and row.get("val_accuracy") is None for row in rows.seen)

    # What is kept gives that loss, by PyTorch alone.
    kept = sb.strip(net).eval()
    x, y = batches.dataset.tensors
    with torch.no_grad():
        assert float(LOSSES[kind](kept(x), y)) == pytest.approx(min(losses), rel=1e-5)


def test_evaluate_takes_the_loss(tmp_path):
    net, batches = network(), data("mse")
    found = evaluate(net, batches, loss=nn.MSELoss())
    x, y = batches.dataset.tensors
    with torch.no_grad():
        assert found.loss == pytest.approx(float(nn.MSELoss()(net.eval()(x).logits, y)), rel=1e-5)
    assert found.accuracy is None


def test_branches_get_the_loss_of_the_main_output():
    outputs = sb.Outputs(torch.tensor([[1.0]]), {"a": torch.tensor([[3.0]])})
    terms = sb.ShortcutLoss(main=nn.MSELoss(), combine="additive")(outputs, torch.tensor([[2.0]]), coefficient=0.5)
    assert float(terms.total) == 1.0 + 0.5 * 1.0
    summed = sb.ShortcutLoss(main=nn.MSELoss())(outputs, torch.tensor([[2.0]]), coefficient=0.5)
    assert float(summed.total) == (1.0 + 0.5 * 3.0 - 2.0) ** 2


@pytest.mark.parametrize(
    ("logits", "target", "loss", "message"),
    [
        ((4, 1), torch.zeros(4), nn.MSELoss(), r"outputs of shape \[4, 1\] and targets of shape \[4\].* broadcast"),
        ((4, 1), torch.zeros(4, dtype=torch.long), None, "cross entropy of a single output is 0 .*BCEWithLogitsLoss"),
        ((4, 1), torch.zeros(4, dtype=torch.long), nn.CrossEntropyLoss(), "cross entropy of a single output is 0"),
        ((4, 2), torch.zeros(4, 2), nn.KLDivLoss(reduction="sum"), r"KLDivLoss\(reduction='sum'\): .* use 'mean'"),
        ((4, 1), torch.zeros(4, 1), nn.MSELoss(reduction="sum"), r"MSELoss\(reduction='sum'\): .* use 'mean'"),
    ],
)
def test_what_would_learn_something_else_is_refused(logits, target, loss, message):
    whole = sb.ShortcutLoss() if loss is None else sb.ShortcutLoss(main=loss)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        whole(torch.zeros(logits), target, coefficient=0.0)


@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_whole_numbers_are_trained_on_as_the_same_in_float(tmp_path, kind):
    """With as many outputs as one too, where [N, 1] could be read as classes."""
    x = torch.randn(16, 4)
    y = torch.randint(0, 9 if kind == "numbers" else 2, (16, 1))
    losses = []
    for target in (y, y.float()):
        torch.manual_seed(0)
        rows, loader = Rows(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, target), batch_size=8)
        loss = nn.HuberLoss() if kind == "numbers" else LOSSES["labels"]
        settings = {"folder": tmp_path / str(target.dtype), "execution": execution(), "loggers": [rows], "lr": 0.01}
        fit(nn.Linear(4, 1), loader, validation=loader, epochs=2, loss=loss, **settings)
        losses.append([(row["loss"], row["val_loss"], row["accuracy"]) for row in rows.seen if row["kind"] == "epoch"])
    assert losses[0] == losses[1]
    assert losses[0][0][2] is None


def test_a_mean_over_samples_is_a_mean(tmp_path):
    loss, rows = nn.KLDivLoss(reduction="batchmean"), Rows()
    net = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))
    x, y = torch.randn(10, 4), torch.softmax(torch.randn(10, 3), 1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    settings = {"folder": tmp_path, "execution": execution(), "loggers": [rows], "lr": 1e-12, "accumulate": 2}
    fit(net, loader, validation=loader, epochs=1, loss=loss, **settings)
    with torch.no_grad():
        expected = pytest.approx(float(loss(net(x), y)), rel=1e-5)
    assert (rows.seen[-1]["loss"], rows.seen[-1]["val_loss"]) == (expected, expected)


def test_classes_of_pixels_are_refused(tmp_path):
    x, y = torch.zeros(8, 1, 12, 12), torch.zeros(8, 12, 12, dtype=torch.long)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    with pytest.raises(ValueError, match="one class per sample"):
        fit(network(), loader, epochs=1, folder=tmp_path, execution=execution(), loggers=())
