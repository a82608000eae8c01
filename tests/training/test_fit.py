"""`fit` trains networks of any kind from any loader, and goes on bit for bit."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.schedules import Constant, Linear
from shortback.training import JsonLines, choose_execution, evaluate, fit
from shortback.training.rows import read_epochs
from tests.networks.zoo import OverSteps

pytestmark = pytest.mark.slow


@pytest.fixture
def data():
    """Images whose class is the number of bright columns."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(64) % 4
    x = 0.2 * torch.rand(64, 1, 12, 12, generator=generator)
    for image, label in zip(x, y.tolist(), strict=True):
        image[:, :, : 3 * label] += 1
    return TensorDataset(x, y)


def plainly(**settings):
    return {"execution": choose_execution(device="cpu", precision="fp32", compile="off"), "loggers": [], **settings}


def loader(data, **settings):
    return DataLoader(data, batch_size=16, **{"shuffle": True, **settings})


def snntorch_net():
    snntorch = pytest.importorskip("snntorch")
    neuron = {"beta": 0.9, "threshold": 0.3, "init_hidden": True}
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), snntorch.Leaky(**neuron), nn.Conv2d(4, 4, 3), snntorch.Leaky(**neuron)]
    return OverSteps(nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 4)))


def attached(data):
    return sb.attach(snntorch_net(), sample=data.tensors[0][:2], reduce="mean")


def test_a_foreign_network_learns_and_is_given_back(data, tmp_path):
    net = attached(data)
    result = fit(net, loader(data), validation=loader(data), epochs=4, folder=tmp_path, lr=0.1, **plainly())
    assert (result.epochs, result.steps) == (4, 16)
    assert result.best_val_accuracy > 0.6
    assert evaluate(net, loader(data)).accuracy == result.best_val_accuracy
    assert type(sb.strip(net)) is OverSteps


def test_killed_and_resumed_it_ends_with_the_same_weights(data, tmp_path):
    whole, halves = attached(data), attached(data)
    fit(whole, loader(data), epochs=2, folder=tmp_path / "whole", **plainly())

    class Stop:
        def start(self, **numbers): ...
        def log(self, row): ...
        def close(self): ...
        def advance(self, step):
            if step == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(halves, loader(data), epochs=2, folder=tmp_path / "half", checkpoint_every=1, **plainly(loggers=[Stop()]))
    torch.manual_seed(99)
    fresh = attached(data)
    fit(fresh, loader(data), epochs=2, folder=tmp_path / "half", resume=True, **plainly())
    for (name, a), b in zip(whole.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_loading_and_training_do_not_disturb_each_other(data, tmp_path):
    def weights(folder, dataset):
        torch.manual_seed(0)
        net = sb.attach(nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.Dropout(0.5), nn.Linear(8, 4)), at=["1"],
                        sample=data.tensors[0][:2])  # fmt: skip
        fit(net, loader(dataset), epochs=1, folder=folder, **plainly())
        return net.model[1].weight

    class Drawing(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            torch.rand(3)
            return data[index]

    assert torch.equal(weights(tmp_path / "a", data), weights(tmp_path / "b", Drawing()))


def test_without_branches_and_with_a_coefficient_of_zero_it_is_the_same(data, tmp_path, make_network):
    weights = []
    for branches in (False, True):
        model = make_network()
        net = sb.attach(model, at="stages", sample=data.tensors[0][:2]) if branches else model
        fit(net, loader(data), epochs=1, folder=tmp_path / str(branches), schedule=Constant(value=0.0), **plainly())
        weights.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


def test_parts_of_a_batch_and_the_average_of_weights(data, tmp_path):
    net = attached(data)
    fit(net, loader(data), epochs=1, folder=tmp_path, accumulate=2, ema=0.5, schedule=Linear(start=0.5), **plainly())
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="holds a run"):
        fit(net, loader(data), epochs=1, folder=tmp_path, **plainly())


def test_sequences_are_split_along_their_samples(data, tmp_path):
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.fc = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 4)

        def forward(self, x):
            out = self.relu(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])
            return self.fc(out.mean((3, 4))).cumsum(0)

    x, y = data.tensors
    batches = [(x[i : i + 16].expand(3, -1, -1, -1, -1), y[i : i + 16]) for i in range(0, 64, 16)]
    torch.manual_seed(0)
    net = sb.attach(Sequence(), at=["relu"], sample=batches[0][0], reduce="last")
    fit(net, batches, epochs=1, folder=tmp_path, accumulate=4, lr=0.01, **plainly())
    assert evaluate(net, batches).num_images == 64


def test_a_loader_without_a_length_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="generator has no length"):
        fit(attached(data), (b for b in loader(data)), epochs=1, folder=tmp_path, **plainly())


def test_a_folder_with_checkpoints_holds_a_run_too(data, tmp_path):
    net = attached(data)
    fit(net, loader(data), epochs=1, folder=tmp_path, **plainly())  # without metrics.jsonl
    with pytest.raises(ValueError, match="holds a run"):
        fit(net, loader(data), epochs=1, folder=tmp_path, **plainly())


def test_a_loader_that_gives_its_batches_once_is_told(data, tmp_path):
    class Once:
        def __init__(self):
            self.batches = iter([*loader(data)])

        def __len__(self):
            return 4

        def __iter__(self):
            return self.batches

    with pytest.raises(ValueError, match="Once gives no batches in epoch 2"):
        fit(attached(data), Once(), epochs=2, folder=tmp_path, **plainly())


def test_a_loader_with_a_number_called_epoch(data, tmp_path):
    class Numbered(DataLoader):
        epoch = 0

    assert fit(attached(data), Numbered(data, batch_size=16), epochs=1, folder=tmp_path, **plainly()).steps == 4


def test_a_setting_that_is_none_names_the_nearest(data, tmp_path):
    with pytest.raises(ValueError, match="fit\\(\\) takes no clipnorm; the nearest are clip_norm"):
        fit(attached(data), loader(data), epochs=1, folder=tmp_path, clipnorm=1.0, **plainly())


class Pair(nn.Module):
    """Spikes and membranes of every step, as tensors or as lists, without branches."""

    def __init__(self, *, stacks):
        super().__init__()
        self.fc, self.stacks = nn.Linear(144, 4), stacks

    def forward(self, x):
        steps = [self.fc(x.flatten(1)), 2 * self.fc(x.flatten(1))]
        return (torch.stack(steps), None) if self.stacks else steps


@pytest.mark.parametrize("stacks", [False, True])
def test_without_branches_an_output_is_read_as_with(data, tmp_path, stacks):
    net = Pair(stacks=stacks)
    fit(net, loader(data), validation=loader(data), epochs=2, folder=tmp_path, lr=0.01, **plainly())
    x, y = data.tensors
    with torch.no_grad():
        logits = 1.5 * net.fc(x.flatten(1))
    assert evaluate(net, loader(data)).accuracy == (logits.argmax(1) == y).double().mean().item()


def test_samples_before_steps_without_branches(data, tmp_path):
    class ByStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.fc = nn.Sequential(nn.Linear(36, 8), nn.ReLU()), nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.layers(x.unflatten(2, (4, 3)).transpose(1, 2).flatten(2)))  # [N, T, K], T = 4

    class Mean(ByStep):
        def forward(self, x):
            return super().forward(x).mean(1)

    accuracies = []
    for index, make in enumerate((ByStep, Mean)):
        torch.manual_seed(0)
        net = sb.attach(make(), at=["layers"], sample=data.tensors[0][:4])
        fit(net, loader(data), epochs=1, folder=tmp_path / str(index), **plainly())
        plain = sb.strip(net)
        accuracies.append(evaluate(plain, DataLoader(data, batch_size=4)))  # as many samples as steps and classes
        fit(plain, loader(data), epochs=1, folder=tmp_path / f"plain{index}", **plainly())
        accuracies.append(evaluate(plain, DataLoader(data, batch_size=16)))
    for by_step, of_means in zip(accuracies[:2], accuracies[2:], strict=True):
        assert (by_step.accuracy, by_step.loss) == (of_means.accuracy, pytest.approx(of_means.loss, rel=1e-4))


def test_it_begins_with_what_was_chosen(data, tmp_path, capsys):
    fit(attached(data), loader(data), epochs=1, folder=tmp_path / "a", title="mine")
    assert capsys.readouterr().out.startswith("mine  on ")
    fit(attached(data), loader(data), epochs=1, folder=tmp_path / "b", execution=plainly()["execution"])
    assert capsys.readouterr().out.startswith("OverSteps  epoch 1 ")  # what the caller chose is known to them


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping": 3}, "takes no early_stopping; here it is patience="),
        ({"lr": "0.1"}, "lr='0.1': must be a number"),
        ({"learning_rate": 0.1}, "learning_rate=0.1: must be a function of the optimizer step"),
        ({"loss": nn.CrossEntropyLoss}, "main=.*must be a function of outputs and targets"),
    ],
)
def test_what_others_call_otherwise(data, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        fit(attached(data), loader(data), epochs=1, folder=tmp_path, **plainly(), **settings)


def test_a_loss_of_one_output_is_the_main_one(data, tmp_path):
    rows = []
    for name, loss in (("a", None), ("b", nn.CrossEntropyLoss())):
        net = attached(data)
        fit(net, loader(data), epochs=1, folder=tmp_path / name, loss=loss, **plainly())
        rows.append([p.detach().clone() for p in net.parameters()])
    for first, second in zip(*rows, strict=True):
        torch.testing.assert_close(first, second)


def test_one_output_for_all_in_eval_is_told_once_with_the_reason(data, tmp_path, caplog):
    """Running statistics far behind those of the batch let nothing through in `eval()`."""
    torch.manual_seed(0)
    norms = nn.BatchNorm2d(4, momentum=1e-4), nn.BatchNorm2d(4, momentum=1e-4)
    neurons = sb.LIF(2, backend="reference"), sb.LIF(2, backend="reference")
    for norm in norms:
        norm.running_mean += 100
    layers = nn.Conv2d(1, 4, 3), norms[0], neurons[0], nn.Conv2d(4, 4, 3), norms[1], neurons[1]
    net = sb.SpikingNetwork(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)), num_steps=2)
    branched = sb.attach(net, at=["2"], sample=data.tensors[0][:2])
    validation = loader(data, shuffle=False)
    fit(branched, loader(data), validation=validation, epochs=2, folder=tmp_path, lr=0.01, **plainly())
    told = [message for message in caplog.messages if "all samples get the same output" in message]
    assert told == [
        "in eval(), as at inference, all samples get the same output: 2 fires in training and never there, since the "
        "running statistics of the norms lag behind; train longer, or raise their momentum"
    ]


@pytest.mark.parametrize("wrap", [nn.Sequential, torch.compile], ids=["inside", "compiled"])
def test_a_network_that_keeps_branches_inside_is_refused(data, tmp_path, wrap):
    with pytest.raises(ValueError, match=r"contains a network with branches, .*: train what attach\(\) returned"):
        fit(wrap(attached(data)), loader(data), epochs=1, folder=tmp_path / "run", **plainly())


def test_branches_that_only_training_returns_are_trained(data, tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.flat = nn.Flatten()
            self.main, self.side = (nn.Linear(data.tensors[0][0].numel(), 4) for _ in range(2))

        def forward(self, x):
            x = self.flat(x)
            return sb.Outputs(self.main(x), {"side": self.side(x)}) if self.training else self.main(x)

    net = Own()
    before = net.side.weight.clone()
    loggers = [JsonLines(tmp_path / "metrics.jsonl")]
    fit(net, loader(data), epochs=1, schedule=1.0, folder=tmp_path, **plainly(loggers=loggers))
    assert not torch.equal(net.side.weight, before)
    assert [row["coefficient"] for row in read_epochs(tmp_path / "metrics.jsonl")] == [1.0]


def test_an_optimizer_comes_back_with_its_rate(data, tmp_path):
    net = attached(data)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    fit(net, loader(data), epochs=1, optimizer=optimizer, folder=tmp_path, **plainly())
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


def test_the_first_lines_say_nothing_of_what_is_not_there(data, tmp_path, capsys):
    images = data.tensors[0][:2]

    def net():
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 4))

    for index, schedule in enumerate((0.0, None)):
        given = sb.attach(net(), at=["1"], sample=images) if schedule is not None else net()
        fit(given, loader(data), epochs=1, folder=tmp_path / str(index), schedule=schedule, log_every=2)
        lines = capsys.readouterr().out
        assert "accuracy" in lines
        assert not any(word in lines for word in ("compiled neurons", "coefficient", "branch share"))
    fit(sb.attach(net(), at=["1"], sample=images), loader(data), epochs=1, folder=tmp_path / "with", log_every=2)
    assert capsys.readouterr().out.count("coefficient") == 3
