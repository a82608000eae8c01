"""The first batch is looked at before anything is compiled, and a run that was refused leaves the folder free."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.training import choose_execution, fit
from tests.networks.research import StepResNet

EXECUTION = choose_execution(compile="off", precision="fp32")


def train(net, loader, folder, **settings):
    return fit(net, loader, epochs=1, folder=folder, execution=EXECUTION, **settings)


@pytest.fixture
def data(batch):
    return batch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: [(x.byte(), y)], "the batch is uint8"),
        (lambda x, y: [(x.double(), y)], "the batch is float64"),
        (lambda x, y: [(x, y.float())], r"targets of shape \[8\] in float32.*target\.long"),
        (lambda x, y: [(x, y + 7)], "labels from"),
        (lambda x, y: [(x, y[:3])], "3 labels for 8 samples"),
        (lambda x, y: [(x.numpy(), y)], "gives inputs as a ndarray"),
        (lambda x, y: [(x, y.tolist())], "gives classes as a list"),
        (lambda x, y: [{"image": x, "label": y}], "gives a dict with 'image', 'label'"),
        (lambda x, y: [(x, y, y)], "gives a tuple of 3"),
        (lambda x, y: [(x[0], y[0])], "one sample at a time"),
        (lambda x, y: [], "has no batch"),
        (lambda x, y: iter([(x, y)]), "has no length"),
        (lambda x, y: DataLoader(TensorDataset(x, y), batch_size=9, drop_last=True), "has no batch"),
    ],
    ids=range(13),
)
def test_what_is_refused_leaves_the_folder_free(make_network, data, tmp_path, change, message):
    net = sb.attach(make_network(), sample=data[0])
    with pytest.raises(ValueError, match=message):
        train(net, change(*data), tmp_path / "run")
    assert train(net, [data], tmp_path / "run").steps == 1


def test_samples_before_steps_and_as_many_of_both_are_refused_without_branches(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(3, 1, 16, 16), torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"returns \[N, T, K\].*transpose it"):
        train(StepResNet(3), [(x, y)], tmp_path / "a")
    assert train(sb.attach(StepResNet(3), sample=x, reduce="mean"), [(x, y)], tmp_path / "b").steps == 1


class Volumes(nn.Module):
    """Convolutions over three axes: `[N, C, D, H, W]` is no sequence."""

    def __init__(self):
        super().__init__()
        self.conv, self.lif = nn.Conv3d(2, 4, 3), sb.LIF(1, backend="reference")
        self.conv2, self.lif2 = nn.Conv3d(4, 4, 3), sb.LIF(1, backend="reference")
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.lif2(self.conv2(self.lif(self.conv(x)))).mean((2, 3, 4)))


@pytest.mark.parametrize("branches", [False, True])
def test_networks_of_volumes_train_in_parts_and_watched(tmp_path, branches):
    torch.manual_seed(0)
    x, y = torch.randn(8, 2, 6, 6, 6), torch.arange(8) % 3
    net = sb.attach(Volumes(), sample=x) if branches else Volumes()
    result = train(net, [(x, y)], tmp_path, accumulate=2, watch_every=1, watch_samples=4)
    assert result.steps == 1


def test_a_number_is_a_constant_schedule(make_network, data, tmp_path):
    net = sb.attach(make_network(), sample=data[0])
    assert train(net, [data], tmp_path, schedule=0.5).steps == 1


def test_all_frozen_before_the_last_branch_trains_on(make_network, data, tmp_path):
    net = sb.attach(make_network(), sample=data[0])
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith(("heads", "model.network.fc")))
    before = [p.clone() for p in net.parameters() if p.requires_grad]
    rows = []

    class Log:
        def start(self, **settings): ...
        def log(self, row):
            rows.append(row)

        def advance(self, step): ...
        def close(self): ...

    train(net, [data, data], tmp_path, loggers=[Log()], schedule=sb.schedules.Adaptive())
    assert rows[-1]["branch_share"] == 0
    assert not any(
        torch.equal(a, b) for a, b in zip(before, (p for p in net.parameters() if p.requires_grad), strict=True)
    )
