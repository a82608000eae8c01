"""What of a network of anyone's is watched, and along which axis its time runs."""

import math

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.health import measure
from shortback.health.neurons import neurons_of, time_of
from tests.health.foreign import MultiStep, OneStep, Spike
from tests.networks.research import StepResNet


def test_samples_first_and_as_many_steps_as_samples():
    """The output is `[N, T, K]` with N = T: labels are of samples, and not of steps."""
    torch.manual_seed(0)
    net, x = StepResNet(3), torch.randn(3, 1, 16, 16)
    watched = neurons_of(net, net, x)
    assert len(watched.neurons) == 13
    time = time_of(net, net, watched, x, num_samples=3)
    assert set(time.layouts.values()) == {"steps"}
    assert time.output == "batch_first"
    y = torch.tensor([1, 5, 9])
    expected = torch.nn.functional.cross_entropy(net.train()(x).mean(1), y)
    assert abs(sb.diagnose(net, x, y, suggest=False).measurement.loss - expected.item()) < 1e-6


def test_a_network_without_neurons_is_not_called_healthy_without_a_word(batch):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 16), torch.nn.Linear(16, 10))
    assert "no neurons were seen" in sb.diagnose(net, *batch, suggest=False).judgement.reason


def test_neurons_of_ours_are_known_without_a_run(make_network):
    net = make_network()
    assert len(neurons_of(net.network, None, None).neurons) == 19


def test_a_readout_that_integrates_is_no_neuron_that_fires_always():
    norse = pytest.importorskip("norse.torch")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif, self.fc2, self.out = nn.Linear(8, 6), norse.LIFCell(), nn.Linear(6, 4), norse.LICell()

        def forward(self, x):
            spiking, integrating, outputs = None, None, []
            for _ in range(5):
                spikes, spiking = self.lif(self.fc1(100 * x), spiking)
                output, integrating = self.out(self.fc2(spikes), integrating)
                outputs.append(output)
            return torch.stack(outputs).mean(0)

    torch.manual_seed(0)
    report = sb.diagnose(Net(), torch.rand(8, 8), torch.arange(8) % 4, suggest=False)
    assert [neuron.name for neuron in report.neurons] == ["lif"]
    assert "neither 0 nor 1" not in str(report)
    assert report.judgement.verdict != "saturated"


class Averages(nn.Module):
    """Two layers of neurons that take all steps along an axis, over which it averages by itself."""

    def __init__(self, axis, *, shared=False):
        super().__init__()
        torch.manual_seed(2)
        self.axis, self.a, self.b, self.fc = axis, nn.Linear(6, 20), nn.Linear(20, 20), nn.Linear(20, 5)
        self.first = MultiStep(axis)
        self.second = self.first if shared else MultiStep(axis)

    def forward(self, x):
        return self.fc(self.second(4 * self.b(self.first(self.a(x)))).mean(self.axis))


def test_samples_first_and_steps_that_the_network_averages():
    """Each step of a channel is no neuron of its own: the same numbers as with time first."""
    torch.manual_seed(0)
    x, y = 1.2 * torch.randn(4, 60, 6), torch.arange(4)
    time_first = sb.diagnose(Averages(0), x.transpose(0, 1), y, suggest=False)
    batch_first = sb.diagnose(Averages(1), x, y, suggest=False)
    for a, b in zip(time_first.neurons, batch_first.neurons, strict=True):
        assert (a.firing_rate, a.dead, a.saturated) == (b.firing_rate, b.dead, b.saturated)
        assert a.gradient_by_step == pytest.approx(b.gradient_by_step, rel=1e-4)
        assert len(b.gradient_by_step) == 60
        assert b.dead < 0.5
    assert batch_first.judgement.verdict == time_first.judgement.verdict == "healthy"


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("num_steps", [40, 20])
def test_one_neuron_for_all_layers_that_takes_all_steps_is_one_of_each(axis, num_steps):
    torch.manual_seed(0)
    x, y = 1.2 * torch.randn(20, num_steps, 6), torch.arange(20) % 5
    x = x if axis else x.transpose(0, 1)
    each = sb.diagnose(Averages(axis), x, y, suggest=False).neurons
    shared = sb.diagnose(Averages(axis, shared=True), x, y, suggest=False).neurons
    assert [neuron.name for neuron in shared] == ["first", "first (call 2)"]
    for a, b in zip(each, shared, strict=True):
        assert (a.firing_rate, a.dead, a.saturated) == (b.firing_rate, b.dead, b.saturated)
        assert a.gradient_by_step == pytest.approx(b.gradient_by_step, rel=1e-5)
        assert len(b.gradient_by_step) == num_steps


def test_an_axis_of_time_that_no_layout_has_leaves_neurons_unknown():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.neuron, self.fc = nn.Linear(6, 7), MultiStep(2), nn.Linear(7, 5)

        def forward(self, x):  # [N, C, T, 6]
            return self.fc(self.neuron(self.a(x)).mean((1, 2)))

    torch.manual_seed(0)
    report = sb.diagnose(Net(), 3 * torch.randn(4, 2, 9, 6), torch.arange(4), suggest=False)
    (neuron,) = report.neurons
    assert 0 < neuron.firing_rate < 1
    assert math.isnan(neuron.dead)
    assert math.isnan(neuron.saturated)
    assert neuron.gradient_by_step == []
    assert report.judgement.verdict == "healthy"
    assert str(report).splitlines()[-1].split()[2:] == ["?", "?", "?"]
    assert report.to_dict()["measurement"]["neurons"][0]["dead"] is None


def test_an_image_has_no_steps(batch):
    class Threshold(nn.Module):
        def forward(self, x):
            return Spike.apply(x)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), Threshold(), nn.Flatten(), nn.Linear(12 * 144, 10))
    (neuron,) = sb.diagnose(net, *batch, suggest=False).neurons
    assert len(neuron.gradient_by_step) == 1
    with torch.no_grad():
        assert neuron.dead == (net[1](net[0](batch[0])).sum(0) == 0).double().mean().item()


class Ours(nn.Module):
    """Our neuron, and a network that returns its steps as it likes."""

    def __init__(self, num_steps, *, batch_first):
        super().__init__()
        torch.manual_seed(1)
        self.num_steps, self.batch_first = num_steps, batch_first
        self.a, self.neuron, self.fc = nn.Linear(6, 8), sb.LIF(num_steps, backend="reference"), nn.Linear(8, 5)

    def forward(self, x):
        grows = torch.arange(1, self.num_steps + 1).repeat_interleave(len(x))[:, None]
        output = self.fc(self.neuron(grows * self.a(x).repeat(self.num_steps, 1))).unflatten(0, (self.num_steps, -1))
        return output.transpose(0, 1) if self.batch_first else output


@pytest.mark.parametrize("num_steps", [3, 4])
def test_steps_of_an_output_are_told_from_samples_without_foreign_neurons(num_steps):
    torch.manual_seed(0)
    x, y = 3 * torch.randn(4, 6), torch.arange(4)
    time_first, batch_first = (
        sb.diagnose(Ours(num_steps, batch_first=each), x, y, suggest=False).measurement for each in (False, True)
    )
    assert batch_first.loss == pytest.approx(time_first.loss)
    assert batch_first.layers[-1].gradient_norm == pytest.approx(time_first.layers[-1].gradient_norm)


def test_spikes_are_found_beside_a_membrane_that_comes_first():
    class Net(nn.Module):
        def __init__(self, *, membrane_first):
            super().__init__()
            torch.manual_seed(1)
            self.first = membrane_first
            self.a, self.neuron, self.fc = nn.Linear(6, 20), OneStep(membrane_first=membrane_first), nn.Linear(20, 5)

        def forward(self, x):
            membrane, outputs = None, []
            for _ in range(3):
                returned = self.neuron(self.a(x), membrane)
                membrane, spikes = returned if self.first else returned[::-1]
                outputs.append(self.fc(spikes))
            return torch.stack(outputs).mean(0)

    torch.manual_seed(0)
    x, y = 3 * torch.randn(4, 6), torch.arange(4)
    a, b = (sb.diagnose(Net(membrane_first=each), x, y, suggest=False).neurons for each in (False, True))
    assert a == b
    assert a[0].not_binary == 0


class InEval(nn.Module):
    """A network that does something else in `eval()` than in training."""

    def __init__(self, ends):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.ends = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)), ends

    def forward(self, x):
        output = self.layers(x)
        return output if self.training else self.ends(output)


def fails(output):
    raise RuntimeError("export me first")


@pytest.mark.parametrize("ends", [lambda output: output.argmax(-1), lambda output: {"scores": output}, fails])
@pytest.mark.parametrize("is_trained", [False, True])
def test_of_a_network_that_does_something_else_in_eval_training_is_measured(ends, is_trained):
    torch.manual_seed(0)
    net, x, y = InEval(ends), torch.randn(6, 6), torch.arange(6) % 5
    if is_trained:
        net.train()(x)
    expected = torch.nn.functional.cross_entropy(net.train()(x), y).item()
    report = sb.diagnose(net, x, y, suggest=False)
    assert report.judgement.verdict == "healthy"
    assert report.measurement.loss == pytest.approx(expected)
    few = measure(net, x, y, loss=sb.ShortcutLoss(), coefficient=0.0, by_branch=False)
    assert few.loss == pytest.approx(expected)


def test_steps_in_the_output_of_a_network_that_takes_a_range_alone():
    class InRange(Ours):
        def forward(self, x):
            assert x.abs().max() <= 1
            return super().forward(5 * x)

    torch.manual_seed(0)
    x, y = torch.rand(4, 6), torch.arange(4)
    nets = [each(3, batch_first=False) for each in (Ours, InRange)]
    a, b = (sb.diagnose(net, x * f, y, suggest=False).measurement for net, f in zip(nets, (5, 1), strict=True))
    assert a.loss == pytest.approx(b.loss)
