"""The first batch is looked at before anything is compiled, and a run that was refused leaves the folder free."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.training import choose_execution, fit

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


class ByStep(nn.Module):
    """Logits of a linear map at each of three steps, in one of the ways they may lie."""

    def __init__(self, order, *, softmax=False):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.order, self.softmax = nn.Linear(6, 4), order, softmax

    def forward(self, x):
        logits = torch.stack([self.fc(x * (1 + step)) for step in range(3)])
        logits = logits.softmax(-1) if self.softmax else logits
        return logits.permute(self.order)


@pytest.mark.parametrize("num_samples", [3, 5])
@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0)])
def test_samples_before_steps_train_as_steps_before_samples(tmp_path, order, num_samples):
    """With as many samples as steps too, which is no question of sizes."""
    x, y = torch.randn(num_samples, 6), torch.arange(num_samples) % 4
    seen = []

    def entropy(logits, target):
        seen.append([*logits.shape])
        return nn.functional.cross_entropy(logits.mean(0), target)

    nets = ByStep((0, 1, 2)), ByStep(order)
    for net, name in zip(nets, "ab", strict=True):
        train(net, [(x, y)] * 2, tmp_path / name, validation=[(x, y)], loss=entropy)
    assert all(shape == [3, num_samples, 4] for shape in seen)
    torch.testing.assert_close(nets[0].fc.weight, nets[1].fc.weight)


def test_an_output_of_which_no_axis_is_known_is_refused(tmp_path):
    class Alike(ByStep):
        def forward(self, x):  # as many classes as steps, and the first feature changes all of them
            return super().forward(x)[:, :, :3].softmax(2).cumsum(1).softmax(1)

    x, y = torch.randn(5, 6), torch.arange(5) % 3
    with pytest.raises(ValueError, match=r"\[N, T, K\] or \[N, K, T\].*have it return \[T, N, K\]"):
        train(Alike((1, 0, 2), softmax=True), [(x, y)], tmp_path)


class Fires(nn.Module):
    """Neurons at the end, over as many layers as it takes."""

    def __init__(self, threshold):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.fc, self.out = nn.Linear(8, 4), sb.LIF(1, threshold=threshold, backend="reference")

    def forward(self, x):
        return self.out(self.fc(self.body(x)))


def test_an_output_that_never_fires_is_told_once(tmp_path, caplog):
    x, y = 3 * torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    zeros = nn.Sequential(nn.Linear(6, 4))
    nn.init.zeros_(zeros[0].weight), nn.init.zeros_(zeros[0].bias)
    for index, healthy in enumerate((Fires(0.01), zeros)):
        train(healthy, [(x, y)] * 2, tmp_path / str(index))
    assert "the output of" not in caplog.text
    train(Fires(1e6), [(x, y)] * 2, tmp_path / "dead")
    (message,) = (m for m in caplog.messages if m.startswith("the output of"))
    assert "the output of Fires is 0 for all samples of the first batch" in message
    assert "a readout that does not fire, or a lower threshold" in message


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
