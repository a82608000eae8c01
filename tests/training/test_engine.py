import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shortback.losses import ShortcutLoss
from shortback.neurons import LIF
from shortback.schedules import Adaptive, Constant, Linear
from shortback.training import CheckpointError, Evaluation, NonFiniteError
from shortback.training.checkpoint import read_checkpoint
from shortback.training.optim import shares_of_groups


def weights(trainer):
    return {name: value.clone() for name, value in trainer.net.state_dict().items()}


def assert_equal(a, b):
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_it_learns_and_logs(make_trainer, rows):
    log = rows()
    result = make_trainer(loggers=[log], epochs=12, lr=0.1).fit()
    assert result.best_val_accuracy > 0.7  # of four classes
    assert (result.epochs, result.steps) == (12, 48)
    assert log.started == (0, 48)
    assert log.closed
    steps = [row for row in log.rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(2, 49, 2))
    # The coefficient of a row is the one its last step was taken with: step i of n starts at progress (i - 1) / n.
    assert [row["coefficient"] for row in steps] == pytest.approx([1 - (i - 1) / 48 for i in range(2, 49, 2)])
    epochs = [row for row in log.rows if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == list(range(1, 13))
    assert all(0 <= row["branch_share"] <= 1 for row in epochs)
    assert epochs[0]["branch_share"] > epochs[-1]["branch_share"]


@pytest.mark.parametrize("combine", ["logits", "additive"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_logged_of_a_step_is_that_of_its_batch(make_trainer, rows, combine, accumulate):
    """The first row of one step, against the outputs of the network it was taken with, computed by hand."""
    log = rows()
    loss = ShortcutLoss(combine=combine)
    settings = {"epochs": 1, "log_every": 1, "accumulate": accumulate, "schedule": Constant(value=0.7), "loss": loss}
    trainer = make_trainer(loggers=[log], **settings)
    net = copy.deepcopy(trainer.net).train()
    x, y = next(iter(trainer.train.epoch(0)))
    trainer.fit()
    row = next(row for row in log.rows if row["kind"] == "step")
    outputs = [net(part) for part in x.chunk(accumulate)]
    logits = torch.cat([out.logits for out in outputs])
    branches = {place: torch.cat([out.branches[place] for out in outputs]) for place in net.places}
    summed = logits + 0.7 * sum(branches.values())
    losses = {place: F.cross_entropy(each, y).item() for place, each in branches.items()}
    expected = {
        "loss": F.cross_entropy(summed, y).item()
        if combine == "logits"
        else F.cross_entropy(logits, y).item() + 0.7 * sum(losses.values()),
        "main_loss": F.cross_entropy(logits, y).item(),
        "accuracy": (logits.argmax(1) == y).double().mean().item(),
        "sum_accuracy": ((summed if combine == "logits" else logits).argmax(1) == y).double().mean().item(),
    }
    assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert row["branches"]["branch_loss"] == pytest.approx(losses, rel=1e-5)
    hits = {place: (each.argmax(1) == y).double().mean().item() for place, each in branches.items()}
    assert row["branches"]["branch_accuracy"] == pytest.approx(hits)


def test_vanilla_rows_have_no_branches(make_trainer, rows):
    log = rows()
    make_trainer(loggers=[log], branches=False, epochs=1).fit()
    steps = [row for row in log.rows if row["kind"] == "step"]
    assert all("branches" not in row and row["accuracy"] == row["sum_accuracy"] for row in steps)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.5}], ids=["plain", "ema"])
def test_the_best_weights_are_kept_and_the_last_ones_too(make_trainer, tmp_path, monkeypatch, settings):
    """Of six epochs the third is the best: what it had is in the network then, the heads too, and the last on disk."""
    trainer, at_end = make_trainer(epochs=6, **settings), {}

    def judged(*arguments, **_):
        evaluated = trainer.net if trainer.average is None else trainer.average.module
        at_end[trainer.state.epoch + 1] = {name: value.clone() for name, value in evaluated.state_dict().items()}
        return Evaluation(1.0 if trainer.state.epoch == 2 else 0.5, 1.0, 40)

    monkeypatch.setattr("shortback.training.engine.evaluate", judged)
    result = trainer.fit()
    assert result.best_epoch == 3
    assert_equal(trainer.net.state_dict(), at_end[3])
    last = read_checkpoint(tmp_path / "run" / "last.pt")
    assert last["state"]["step"] == 24
    if not settings:
        assert_equal(last["net"], at_end[6])
    moved = {name.split(".")[0] for name in at_end[3] if not torch.equal(at_end[3][name], at_end[6][name])}
    assert moved == {"model", "heads"}


def test_an_adaptive_coefficient_is_of_the_loss_that_is_trained(make_trainer):
    convex = ShortcutLoss(combine="convex")
    with pytest.raises(
        ValueError, match=r"Adaptive\(combine='logits'\) with a loss .*write Adaptive\(combine='convex'\)"
    ):
        make_trainer(schedule=Adaptive(), loss=convex)
    with pytest.raises(ValueError, match=r"write Adaptive\(combine='additive'\)"):
        make_trainer(schedule=Adaptive(combine="convex"), loss=ShortcutLoss(combine="additive"))
    make_trainer(schedule=Adaptive(combine="convex"), loss=convex)
    make_trainer(schedule=Adaptive(), loss=ShortcutLoss(combine="additive"))  # the same function


def test_the_weights_of_a_loss_are_moved_to_the_device(make_trainer):
    class Moved(nn.CrossEntropyLoss):
        def to(self, device):
            devices.append(device)
            return self

    devices = []
    make_trainer(loss=ShortcutLoss(main=Moved(), branch=Moved()))
    assert devices == [torch.device("cpu")] * 2


def test_resuming_without_a_checkpoint_starts(make_trainer):
    assert make_trainer(epochs=1).fit(resume=True).steps == 4


def test_branches_are_dropped_once_their_coefficient_stays_zero(make_trainer, rows):
    calls = []
    trainer = make_trainer(
        schedule=Linear(over=0.5), loggers=[rows(lambda step: calls.append(trainer.net.branches_enabled))]
    )
    trainer.fit()
    assert calls == [True] * 6 + [False] * 6


def test_vanilla_is_the_same_with_and_without_idle_branches(make_trainer, tmp_path):
    vanilla = make_trainer(folder=tmp_path / "a", branches=False)
    vanilla.fit()
    idle = make_trainer(folder=tmp_path / "b", schedule=Constant(value=0.0))
    idle.fit()
    assert_equal(vanilla.net.state_dict(), idle.net.model.state_dict())


@pytest.mark.parametrize("broken", ["weight", "neuron"])
def test_numbers_that_are_none_stop_it_and_name_the_layer(make_trainer, make_network, broken):
    network = make_network()
    if broken == "weight":
        with torch.no_grad():
            network.network.layer2[1].conv1.weight[0] = float("nan")
        message = r"the weight .*layer2\.1\.conv1\.weight"
    else:
        network.network.layer2[1].neuron1 = Exploding(2)
        message = r"the output of .*layer2\.1\.neuron1 \(Exploding\)"
    trainer = make_trainer(network=network)
    with pytest.raises(NonFiniteError, match=message):
        trainer.fit()


class Exploding(LIF):
    def forward(self, x):
        return x / 0


def test_a_full_disk_leaves_the_old_checkpoint(make_trainer, monkeypatch, tmp_path):
    make_trainer(epochs=2).fit()
    before = (tmp_path / "run" / "last.pt").read_bytes()

    def full(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file: no space")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="What was saved before is untouched"):
        make_trainer(epochs=2).fit()
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*tmp"))


def test_groups_of_parameters_keep_their_learning_rates(make_trainer):
    trainer = make_trainer(epochs=1)
    groups = [{"params": list(trainer.net.model.parameters()), "lr": 0.001}]
    groups += [{"params": list(trainer.net.heads.parameters()), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    trainer.optimizer, trainer.learning_rate_shares = optimizer, shares_of_groups(optimizer)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in optimizer.param_groups]))
    trainer.fit()
    assert seen == [pytest.approx([0.01 * trainer.learning_rate(i), trainer.learning_rate(i)]) for i in range(4)]


def test_norms_that_are_frozen_stay_frozen(make_trainer, make_network):
    network = make_network()
    norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    norm.eval()
    before = {name: value.clone() for name, value in norm.named_buffers()}
    trainer = make_trainer(network=network, epochs=1, watch_every=2)
    trainer.fit()
    assert_equal(dict(norm.named_buffers()), before)
    assert not norm.training
    assert trainer.net.training


def test_a_gradient_from_before_is_none_of_its_own(make_trainer, rows):
    logs = rows(), rows()
    for log, before in zip(logs, (False, True), strict=True):
        trainer = make_trainer(loggers=[log], epochs=1, log_every=1)
        if before:
            for parameter in trainer.net.parameters():
                parameter.grad = torch.ones_like(parameter)
        trainer.fit()
    assert [row["gradient_norm"] for row in logs[0].rows if row["kind"] == "step"] == [
        row["gradient_norm"] for row in logs[1].rows if row["kind"] == "step"
    ]


def test_looks_take_a_part_of_what_is_computed_in_parts(make_trainer):
    trainer, sizes = make_trainer(epochs=1, accumulate=8, schedule=Adaptive()), []
    trainer.net.register_forward_pre_hook(lambda net, inputs: sizes.append(len(inputs[0])) if net.training else None)
    trainer.fit()
    assert {*sizes} == {2}


def test_a_look_passes_by_a_batch_of_one_sample(make_trainer, rows):
    log = rows()
    trainer = make_trainer(loggers=[log], epochs=2, watch_every=1)
    whole = trainer.train.epoch

    def short(epoch, *, start=0):
        for index, (x, y) in enumerate(whole(epoch, start=start)):
            yield (x[:1], y[:1]) if index == 2 else (x, y)

    trainer.train.epoch = short
    trainer.fit()
    assert [row["step"] for row in log.rows if row["kind"] == "health"] == [1, 2, 4, 5, 6, 8]


def test_branches_that_were_dropped_are_there_again(make_trainer):
    trainer = make_trainer(epochs=2, schedule=Linear(over=0.5))
    frozen = next(trainer.net.heads.parameters()).requires_grad_(False)
    trainer.fit()
    assert trainer.net.branches_enabled
    assert not frozen.requires_grad
    assert sum(p.requires_grad for p in trainer.net.heads.parameters()) == len([*trainer.net.heads.parameters()]) - 1


def test_after_an_error_the_network_is_as_it_was_given(make_trainer, monkeypatch):
    trainer = make_trainer(epochs=2, lr=float("nan"))
    called = []
    monkeypatch.setattr("shortback.training.given.unpatch_strided_1x1", called.append)
    monkeypatch.setattr("shortback.training.given.restore_norms", called.append)
    with pytest.raises(NonFiniteError):
        trainer.fit()
    assert called == [trainer.net, trainer.given._convolutions]


def test_neurons_stay_as_they_were_trained(make_trainer, make_network):
    """A test right afterwards neither compiles nor computes otherwise than the validation did."""
    network = make_network(backend="auto")
    make_trainer(network=network, epochs=1).fit()
    assert {m.backend for m in network.modules() if isinstance(m, LIF)} == {"reference"}


@pytest.mark.parametrize("what", ["optimizer", "resume", "logger", "average"])
def test_after_one_before_the_first_step_too(make_trainer, make_network, rows, tmp_path, monkeypatch, what):
    network = make_network(backend="auto")

    def fail(*arguments, **settings):
        raise KeyError

    log = rows()
    if what == "optimizer":
        monkeypatch.setattr("shortback.training.engine.check_optimizer", fail)
    elif what == "average":
        monkeypatch.setattr("shortback.training.engine.WeightAverage", fail)
    elif what == "resume":
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "last.pt").write_bytes(b"nothing")
    else:
        log.start = fail
    with pytest.raises((KeyError, CheckpointError)):
        make_trainer(network=network, loggers=[log], ema=0.9).fit(resume=True)
    assert {m.backend for m in network.modules() if isinstance(m, LIF)} == {"auto"}


def test_a_schedule_may_return_a_tensor(make_trainer, rows):
    log = rows()
    make_trainer(loggers=[log], epochs=1, log_every=1, schedule=lambda progress: torch.tensor(0.5)).fit()
    assert [row["coefficient"] for row in log.rows if row["kind"] == "step"] == [0.5] * 4


class Short:
    """Says that it has more batches than it gives."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return 2 * len(self.batches)

    def epoch(self, epoch, *, start=0):
        return self.batches.epoch(epoch, start=start)


def test_epochs_that_are_shorter_than_was_said_are_told_once(make_trainer, caplog):
    trainer = make_trainer(network=nn.Sequential(nn.Flatten(), nn.Linear(144, 4)), branches=False, epochs=3)
    trainer.train = Short(trainer.train)
    trainer.fit()
    (told,) = [message for message in caplog.messages if "its len() is" in message]
    assert told.startswith("Short gave 4 batches in an epoch, but its len() is 8")


def test_without_branches_the_coefficient_is_0(make_trainer, rows):
    log = rows()
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    make_trainer(network=network, branches=False, epochs=1, schedule=Constant(value=0.5), loggers=[log]).fit()
    assert {row["coefficient"] for row in log.rows if "coefficient" in row} == {0.0}
