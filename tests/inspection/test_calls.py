"""Neurons of anyone's making are known by what they return."""

import pytest
import torch
import torch.fx
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import shortback as sb
from shortback.inspection.calls import Calls
from tests.networks.research import AudioNetwork, MemoryNeuron, RectangleSpike, SequenceResNet, StepResNet


@pytest.fixture
def images():
    return torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def names(net, modules):
    return {name for name, module in net.named_modules() if module in modules}


def test_fresh_batch_norms_hide_no_neuron(images):
    torch.manual_seed(0)
    net = StepResNet(3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    calls = Calls.of(net, images)
    assert names(net, calls.neurons) == {n for n, m in net.named_modules() if isinstance(m, MemoryNeuron)}
    assert not calls.firing_layers
    assert calls.counts[net.layer1[0]] == 3  # once a step, of one forward and not of all
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_norm_in_a_neuron_is_part_of_it(images):
    net = SequenceResNet(3)
    found = names(net, Calls.of(net, images.clone()).firing)
    assert {name.split(".")[-1] for name in found} == {"stem_spike", "spike1", "spike2"}
    assert len(found) == 13


def test_layers_that_fire_inside():
    torch.manual_seed(0)
    net = AudioNetwork(20)
    calls = Calls.of(net, torch.randn(4, 12, 20))
    assert (names(net, calls.neurons), names(net, calls.firing_layers)) == (set(), {"snn.0", "snn.1", "snn.2"})


class Silent(nn.Module):
    """Two neurons of one class, of which one never fires."""

    def __init__(self):
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 4, 3), MemoryNeuron()
        self.conv2, self.lif2 = nn.Conv2d(4, 4, 3), MemoryNeuron(threshold=1e9)
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU()

    def forward(self, x):
        x = self.lif2(self.conv2(self.pool(self.lif1(self.conv1(x)))))
        return self.relu(-x).flatten(1)


def test_a_class_that_fires_once_is_known_everywhere_and_zeros_alone_are_no_spikes(images):
    net = Silent()
    assert names(net, Calls.of(net, images).neurons) == {"lif1", "lif2"}  # neither pool nor relu


class Shared(nn.Module):
    """One neuron for all layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(a, 4, 3) for a in (1, 4, 4)])
        self.fc, self.fire = nn.Linear(400, 10), Fire()

    def forward(self, x):
        for layer in self.layers:
            x = self.fire(layer(x))
        return self.fc(x.flatten(1))


class Fire(nn.Module):
    def forward(self, x):
        return RectangleSpike.apply(x, 0.2, 0.5)


def test_the_layers_before_a_shared_neuron_in_their_order(images):
    net = Shared()
    calls = Calls.of(net, images)
    assert calls.counts[net.fire] == 3
    assert calls.before_neurons == list(net.layers)


class MembraneFirst(Fire):
    def forward(self, x):
        return x, RectangleSpike.apply(x, 0.2, 0.5)


def test_which_of_several_tensors_are_the_spikes(images):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), MembraneFirst())
    assert Calls.of(net, images).spikes_at == {net[1]: 1}


class Inline(nn.Module):
    """Neurons that are lines of the `forward`."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        x = RectangleSpike.apply(self.conv1(x), 0.2, 0.5)
        return self.fc(RectangleSpike.apply(self.conv2(x), 0.2, 0.5).mean((2, 3)))


class Hushed(Fire):
    def forward(self, x):
        return RectangleSpike.apply(x, 1e9, 0.5)


def test_spikes_that_no_module_returns_and_neurons_that_never_fire(images):
    calls = Calls.of(Inline(), images)
    assert calls.spikes_inside
    assert not calls.firing
    assert not calls.silent
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Hushed(), nn.Conv2d(4, 4, 3))
    calls = Calls.of(net, (images > 0).float())  # of zeros and ones itself
    assert calls.silent == [net[2]]
    assert not calls.spikes_inside


class Layer(nn.Sequential):
    """A sequence with a neuron of its own."""

    def forward(self, x):
        return RectangleSpike.apply(super().forward(x), 0.2, 0.5)


def test_a_sequence_that_fires_by_itself(images):
    net = nn.Sequential(Layer(nn.Conv2d(1, 4, 3)), nn.Sequential(nn.Conv2d(4, 4, 3), Fire()))
    calls = Calls.of(net, images)
    assert names(net, calls.firing) == {"0", "1.1"}


def test_an_output_of_neurons_that_never_fire(images):
    def has_silent_output(threshold, *after):
        torch.manual_seed(0)
        neuron = sb.LIF(1, threshold=threshold, backend="reference")
        return Calls.of(nn.Sequential(nn.Flatten(), nn.Linear(256, 8), neuron, *after), images).has_silent_output

    assert has_silent_output(1e9)
    assert has_silent_output(1e9, nn.Flatten())
    assert not has_silent_output(0.01)
    assert not has_silent_output(1e9, nn.Linear(8, 4, bias=False))  # zeros of a layer are no spikes


class Linear(nn.Linear):
    """A layer of the user without a forward of its own."""


@pytest.mark.parametrize("cls", [nn.Linear, Linear])
def test_a_gate_that_starts_at_1_is_no_neuron(cls):
    torch.manual_seed(0)
    net = nn.Sequential(cls(4, 6), cls(6, 6), cls(6, 3))
    nn.init.zeros_(net[1].weight)
    nn.init.ones_(net[1].bias)
    calls = Calls.of(net, torch.randn(8, 4))
    assert (calls.firing, calls.spikes_inside) == (set(), False)


class FiringLinear(nn.Linear):
    """Fires in a forward of its own."""

    def forward(self, x):
        return (super().forward(x) > 0).float()


class Fires(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return (self.fc(x) > 0).float()


def given_a_forward():
    layer = nn.Linear(6, 6)
    layer.forward = lambda x: (F.linear(x, layer.weight, layer.bias) > 0).float()
    return layer


@pytest.mark.parametrize(
    "make",
    [
        lambda: weight_norm(FiringLinear(6, 6)),  # PyTorch makes a class of its own for it
        lambda: torch.fx.symbolic_trace(Fires()),
        given_a_forward,
    ],
    ids=["weight norm", "traced", "given a forward"],
)
def test_a_layer_fires_whose_class_alone_is_pytorchs(make):
    torch.manual_seed(0)
    net = nn.Sequential(make(), nn.Linear(6, 6), nn.Linear(6, 3))
    assert names(net, Calls.of(net, torch.randn(8, 6)).firing) == {"0"}


class OneSample(nn.Module):
    """Accepts a batch of one, but not for batch norm on the batch."""

    def __init__(self, neuron):
        super().__init__()
        self.fc, self.norm, self.neuron = nn.Linear(4, 6), nn.BatchNorm1d(6), neuron

    def forward(self, x):
        return self.neuron(self.norm(self.fc(x)))


def test_an_output_is_silent_if_the_statistics_of_one_sample_are_refused():
    net = OneSample(sb.LIF(1, threshold=1e9, backend="reference"))
    x = torch.ones(1, 4)
    with pytest.raises(ValueError, match="more than 1 value"):
        net.train()(x)
    assert Calls.of(net, x).has_silent_output
