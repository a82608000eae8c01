"""What of a network of anyone's is watched, and along which axis its time runs."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.health.neurons import layouts_of, neurons_of
from tests.networks.research import StepResNet


def test_samples_first_and_as_many_steps_as_samples():
    """The output is `[N, T, K]` with N = T: labels are of samples, and not of steps."""
    torch.manual_seed(0)
    net, x = StepResNet(3), torch.randn(3, 1, 16, 16)
    neurons = neurons_of(net, net, x)
    assert len(neurons) == 13
    layouts, output = layouts_of(net, net, neurons, x)
    assert set(layouts.values()) == {"steps"}
    assert output == "batch_first"
    y = torch.tensor([1, 5, 9])
    expected = torch.nn.functional.cross_entropy(net.train()(x).mean(1), y)
    assert abs(sb.diagnose(net, x, y, suggest=False).measurement.loss - expected.item()) < 1e-6


def test_a_network_without_neurons_is_not_called_healthy_without_a_word(batch):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 16), torch.nn.Linear(16, 10))
    assert "no neurons were seen" in sb.diagnose(net, *batch, suggest=False).judgement.reason


def test_neurons_of_ours_are_known_without_a_run(make_network):
    net = make_network()
    assert len(neurons_of(net.network, None, None)) == 19


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
