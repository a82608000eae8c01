"""What of a network of anyone's is watched, and along which axis its time runs."""

import torch

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
