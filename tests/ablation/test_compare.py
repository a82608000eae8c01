"""A comparison of methods on a network of one's own: what is trained, what goes on, and what the table says."""

import functools
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.errors import UserError
from shortback.training import JsonLines, choose_execution, evaluate, fit

pytestmark = pytest.mark.slow


class Net(nn.Module):
    """Two layers and their neurons over two steps; returns outputs and something else, as snnTorch's networks do."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(i, 12), sb.LIF(2, threshold=0.3, backend="reference")) for i in (9, 12, 12)
        )
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = x.repeat(2, 1)
        for block in self.blocks:
            x = block(x)
        return self.fc(x).unflatten(0, (2, -1)), None


def data(seed, count=48):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = torch.rand(count, 9, generator=generator) + nn.functional.one_hot(y, 3).repeat_interleave(3, 1)
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)


def compared(folder, **settings):
    execution = choose_execution(device="cpu", precision="fp32", compile="off")
    usual = {"execution": execution, "places": {"at": "blocks", "reduce": "mean"}, "lr": 0.1, "seeds": 2}
    settings = {"make": Net, "train": data(0), "validation": data(1), "test": data(2), **usual, **settings}
    settings = {key: value for key, value in settings.items() if value is not None}
    return sb.compare(epochs=3, folder=folder, **settings)


def test_each_method_with_each_seed(tmp_path):
    found = compared(tmp_path)
    assert [group.method for group in found.groups] == ["vanilla", "shortcut", "evolutionary"]
    assert [len(group.runs) for group in found.groups] == [2, 2, 2]
    rows = found.groups[2].runs[1].epochs
    assert [row["coefficient"] for row in rows] == pytest.approx([0.25 * (1 - i / 9) for i in (2, 5, 8)])
    assert {row["coefficient"] for row in found.groups[1].runs[0].epochs} == {1.0}
    assert found.groups[1].difference.estimate.mean == pytest.approx(
        sum(
            ours.summary["test_accuracy"] - theirs.summary["test_accuracy"]
            for ours, theirs in zip(found.groups[1].runs, found.groups[0].runs, strict=True)
        )
        / 2
    )
    assert {run.summary["num_classes"] for group in found.groups for run in group.runs} == {3}
    assert all(run.summary["stripped_is_bit_equal"] for group in found.groups for run in group.runs)
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert "evolutionary" in (tmp_path / "report.html").read_text()
    assert "vanilla" in str(found)
    assert "2 finished" in str(found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at": "blocks"}, r"compare\(\) takes no at, an argument of attach\(\): give it as places={'at': 'blocks'}$"),
        ({"sample": torch.zeros(2, 9)}, r"give it as places={'sample': \.\.\.}$"),
        ({"make": Net()}, r"make must be a function that makes a network, not a Net: write lambda: Net"),
        ({"metric": 1}, r"fit\(\) takes no metric"),
    ],
)
def test_a_wrong_argument_says_what_to_write(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        compared(tmp_path, **settings)


def test_vanilla_is_the_training_of_the_network_alone(tmp_path):
    found = compared(tmp_path / "compared", methods=["vanilla"], seeds=[1])
    torch.manual_seed(1)
    net, execution = Net(), choose_execution(device="cpu", precision="fp32", compile="off")
    settings = {"execution": execution, "lr": 0.1, "seed": 1, "loggers": []}
    fit(net, data(0), validation=data(1), epochs=3, folder=tmp_path / "alone", **settings)
    assert found.groups[0].runs[0].summary["test_accuracy"] == evaluate(net, data(2)).accuracy


def test_what_is_finished_is_not_run_again_and_what_was_stopped_goes_on(tmp_path, monkeypatch):
    whole = compared(tmp_path / "whole")
    steps = []

    class Stopping:
        def start(self, **numbers): ...
        def log(self, row): ...
        def close(self): ...
        def advance(self, step):
            steps.append(step)
            if len(steps) == 14:
                raise KeyboardInterrupt

    real = sb.training.fit

    def stopping(*args, folder, **settings):
        return real(*args, folder=folder, loggers=[JsonLines(folder / "metrics.jsonl"), Stopping()], **settings)

    def counting(*args, **settings):
        steps.append("fit")
        return real(*args, **settings)

    monkeypatch.setattr("shortback.ablation.compare.fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        compared(tmp_path / "cut")
    monkeypatch.setattr("shortback.ablation.compare.fit", counting)
    again = compared(tmp_path / "cut")
    assert steps.count("fit") == 5  # one was finished
    for a, b in zip(whole.groups, again.groups, strict=True):
        assert [r.summary["test_accuracy"] for r in a.runs] == [r.summary["test_accuracy"] for r in b.runs]
        assert [r.epochs[-1]["loss"] for r in a.runs] == [r.epochs[-1]["loss"] for r in b.runs]


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    compared(tmp_path, methods=["vanilla"], seeds=1)
    with pytest.raises(ValueError, match=r"vanilla-seed0 was trained with lr=0.1, and now it is 0.2"):
        compared(tmp_path, methods=["vanilla"], seeds=1, lr=0.2)
    with pytest.raises(ValueError, match="methods="):
        compared(tmp_path, methods=["vanila"])


def test_lines_say_of_which_run_they_are(tmp_path, capsys):
    compared(tmp_path, methods=["vanilla", "shortcut"], seeds=[3, 7])
    lines = capsys.readouterr().out.splitlines()
    titles = [f"{method}, seed {seed}" for seed in (3, 7) for method in ("vanilla", "shortcut")]
    assert list(dict.fromkeys(line.partition("  ")[0] for line in lines)) == titles
    # What is chosen by itself is said once, before all; `fit` is told what it was.
    chosen = choose_execution(device="cpu", precision="fp32", compile="off")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortback.ablation.compare.choose_execution", lambda: chosen)
        compared(tmp_path / "b", methods=["vanilla"], seeds=2, execution=None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("on ") for line in lines] == [True] + [False] * (len(lines) - 1)


def test_another_network_other_data_and_another_optimizer_are_refused(tmp_path):
    only = {"methods": ["vanilla"], "seeds": 1}
    sgd = functools.partial(made, torch.optim.SGD, lr=0.1)
    compared(tmp_path, **only, optimizer=sgd)
    before = (tmp_path / "vanilla-seed0" / "settings.json").read_text()
    again = compared(tmp_path, **only, optimizer=sgd)
    assert again.groups[0].runs[0].summary["tested_on"] == "test"
    for changed, key in (
        ({"make": lambda: scaled(Net(), 0.5)}, "network.values=digest"),
        (
            {"make": lambda: firing_at(Net(), 0.4)},
            r"network.LIF.dynamics.threshold=0.3 \(3 times\), and now it is 0.4, 0.3",
        ),
        ({"make": lambda: nn.Sequential(Net())}, "network=Net, 471 numbers, and now it is Sequential, 471"),
        ({"train": data(0, count=32)}, "train=3 batches, 48 samples"),
        ({"validation": data(0, count=32)}, "validation=3 batches, 48 samples"),
        ({"test": None}, "test=3 batches, 48 samples, and now it is none"),
        ({"optimizer": functools.partial(made, torch.optim.SGD, lr=0.2)}, "optimizer.lr=0.1, and now it is 0.2"),
        ({"optimizer": functools.partial(made, torch.optim.Adam, lr=0.1)}, "optimizer=SGD, and now it is Adam"),
        ({"optimizer": None}, "optimizer=SGD, and now it is the usual one"),
    ):
        with pytest.raises(ValueError, match=f"vanilla-seed0 was trained with {key}.*give another folder"):
            compared(tmp_path, **{**only, "optimizer": sgd, **changed})
    assert (tmp_path / "vanilla-seed0" / "settings.json").read_text() == before
    # Runs of before this was written down are read.
    old = {
        key: word for key, word in json.loads(before).items() if key in ("epochs", "loss", "lr", "places", "execution")
    }
    (tmp_path / "vanilla-seed0" / "settings.json").write_text(json.dumps(old))
    compared(tmp_path, **only, make=lambda: scaled(Net(), 0.5))


def made(optimizer, net, **settings):
    return optimizer(net.parameters(), **settings)


def scaled(net, factor):
    with torch.no_grad():
        net.fc.weight.mul_(factor)
    return net


def firing_at(net, threshold):
    net.blocks[0][1] = sb.LIF(2, threshold=threshold, backend="reference")
    return net


def test_weights_that_are_not_of_the_seed_are_left_out_and_the_same_call_goes_on(tmp_path):
    def drawn():
        net = Net()
        net.register_buffer("mask", torch.ones(12, dtype=torch.bool))
        nn.init.constant_(net.fc.bias, float(np.random.randn()))
        return net

    only = {"methods": ["vanilla"], "seeds": 1}
    first = compared(tmp_path, **only, make=drawn)
    written = json.loads((tmp_path / "vanilla-seed0" / "settings.json").read_text())
    assert written["not of PyTorch's seed"] == ["fc.bias"]
    assert compared(tmp_path, **only, make=drawn).to_dict() == first.to_dict()
    with pytest.raises(ValueError, match=r"was trained with network.values=digest"):
        compared(tmp_path, **only, make=lambda: scaled(drawn(), 0.5))


def test_without_a_test_split_the_result_says_so(tmp_path):
    found = compared(tmp_path, methods=["vanilla"], seeds=1, test=None)
    assert found.groups[0].runs[0].summary["tested_on"] == "validation"
    assert "what is called test is the validation split again" in " ".join(str(found).split())


@pytest.mark.parametrize(
    "asked", [{"seeds": [0, 0]}, {"seeds": 0}, {"seeds": []}, {"methods": ["vanilla", "vanilla"]}, {"methods": []}]
)
def test_doubles_and_nothing_are_refused_before_anything_is_trained(tmp_path, asked):
    (name,) = asked
    with pytest.raises(ValueError, match=rf"{name}=\[.*\]: name one or more, each once, such as {name}="):
        compared(tmp_path / "none", **asked)
    assert not (tmp_path / "none").exists()


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "vanilla-seed0"
    path.mkdir()
    (path / "summary.json").write_text("")
    with pytest.raises(UserError, match=r"summary\.json is damaged .*: delete it, and the same call writes it again"):
        compared(tmp_path, methods=["vanilla"], seeds=1)
    (path / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings\.json is damaged .*: delete .*vanilla-seed0, and the run is made"):
        compared(tmp_path, methods=["vanilla"], seeds=1)
