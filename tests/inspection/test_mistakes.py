"""A batch that is not what the network takes is named for what it is; what runs is not refused."""

import pytest
import torch
from torch import nn

import shortback as sb


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lif = nn.Conv2d(3, 4, 3), sb.LIF(1, backend="reference")
        self.conv2, self.lif2 = nn.Conv2d(4, 4, 3), sb.LIF(1, backend="reference")
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(self.lif2(self.conv2(self.lif(self.conv(x)))).mean((2, 3)))


X = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.byte(), r"is uint8, and the weights are float32: pass x\.float\(\) / 255"),
        (X.double(), r"is float64.*pass x\.to\(torch\.float32\)"),
        (X.permute(0, 2, 3, 1), "has its channels last"),
        (X[:, :1], "has 1 channels, and the first convolution takes 3"),
        (X[0], r"one image without a batch: pass x\.unsqueeze\(0\)"),
        (X[:0], "is empty"),
        (X.numpy(), r"torch\.from_numpy"),
        ((X, Y), "a tuple of 2: give the images alone; wrap a network with several inputs in a module"),
        (None, "a NoneType"),
    ],
    ids=range(9),
)
def test_every_entrance_says_what_is_wrong(x, message):
    with pytest.raises(ValueError, match=message):
        sb.attach(Net(), sample=x)
    if x is not X[0]:
        with pytest.raises(ValueError, match=message):
            sb.diagnose(Net(), x, Y)


class Casting(Net):
    """Takes bytes with the channels last, as some networks do."""

    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2).float() / 255)


def test_what_a_network_makes_right_by_itself_runs():
    x = (X * 50 + 100).clamp(0, 255).byte().permute(0, 2, 3, 1)
    assert sb.attach(Casting(), sample=x).places == ("lif",)


def test_an_error_of_the_network_s_own_stays_what_it_is():
    class Broken(Net):
        def forward(self, x):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sb.attach(Broken(), sample=X)


def test_pixels_nobody_normalised_are_told(caplog):
    sb.attach(Net(), sample=(X * 50 + 100).clamp(0, 255))
    assert "pixels from 0 to 255" in caplog.text
    caplog.clear()
    sb.attach(Net(), sample=X)
    assert not caplog.text


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="the network is a function"):
        sb.attach(lambda x: x, sample=X)


def test_tokens_are_no_pixels():
    net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(IndexError, match="out of range"):
        sb.attach(net, at=["1"], sample=torch.full((2, 3), 10))


class Bytes(nn.Module):
    """Casts its input by itself, and has a mistake of its own."""

    def __init__(self):
        super().__init__()
        self.other, self.conv, self.fc = nn.Conv2d(16, 8, 3), nn.Conv2d(3, 16, 3), nn.Linear(9, 10)

    def forward(self, x):
        return self.fc(self.other(self.conv(x.float() / 255)).mean((2, 3)))


@pytest.mark.parametrize("x", [X, X.byte()], ids=["float", "byte"])
def test_the_input_is_not_blamed_for_what_comes_after_the_first_layer(x):
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        sb.attach(Bytes(), at=["conv"], sample=x)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        sb.diagnose(Bytes(), x, Y)


def test_the_first_layer_that_is_called_is_asked_and_the_error_itself_is_told():
    with pytest.raises(ValueError, match=r"has 4 channels, and the first convolution takes 3 \(RuntimeError: .*weight"):
        sb.attach(Bytes(), at=["conv"], sample=torch.randn(6, 4, 9, 9))


def test_an_input_or_targets_on_another_device():
    """Meta is one on every machine."""
    fc = nn.Sequential(nn.Flatten(), nn.Linear(27, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(4, 3, 3, 3)
    with pytest.raises(ValueError, match=r"sample is on meta, and the weights are on cpu: pass x.to\('cpu'\)"):
        sb.attach(fc, at=["2"], sample=x.to("meta"))
    net = sb.attach(fc, at=["2"], sample=x)
    for loss in (sb.ShortcutLoss(), sb.ShortcutLoss(main=nn.CrossEntropyLoss())):
        with pytest.raises(ValueError, match=r"targets are on meta, and the outputs on cpu: pass y.to\('cpu'\)"):
            loss(net(x), torch.zeros(4, dtype=torch.long, device="meta"), coefficient=0.5)
    with pytest.raises(ValueError, match="sample is on cpu, and the weights are on meta"):
        sb.attach(sb.strip(net).to("meta"), at=["2"], sample=x)


def test_a_time_axis_too_many_is_named():
    """As where a network loops over time itself, or SpikingJelly's layers are left in single-step mode."""
    for call in (lambda x: sb.attach(Net(), sample=x), lambda x: sb.diagnose(Net(), x, Y)):
        with pytest.raises(ValueError, match=r"\[4, 6, 3, 9, 9\] has more axes than .*set_step_mode\(net, 'm'\)"):
            call(X.expand(4, *X.shape).clone())


class Returning(nn.Module):
    def forward(self, x):
        return (x > 1).to(x.dtype), x


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.Linear])
def test_a_tuple_given_to_a_layer_is_named(layer):
    """As where snnTorch's neurons stand in a Sequential without `init_hidden=True`."""
    to_conv = nn.Sequential(nn.Conv2d(3, 4, 3), Returning(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = to_conv if layer is nn.Conv2d else nn.Sequential(nn.Flatten(), Returning(), nn.Linear(243, 10))
    for call in (lambda: sb.diagnose(net, X, Y), lambda: sb.scale_to_rate(net, X), lambda: sb.attach(net, sample=X)):
        with pytest.raises(ValueError, match=r"take the spikes out of a neuron's .* init_hidden=True"):
            call()
