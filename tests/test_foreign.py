import pytest
import torch
from torch import nn

from shortback.neurons import Expand, TimeModule, make_neuron
from shortback.spiking import SpikingNetwork


class Folded(nn.Module):
    """A neuron of SpikingJelly that is told of the time steps."""

    def __init__(self, num_steps):
        super().__init__()
        self.num_steps, self.neuron = num_steps, spikingjelly_neuron()

    def forward(self, x):
        self.neuron.reset()
        return self.neuron(x.unflatten(0, (self.num_steps, -1))).flatten(0, 1)


def spikingjelly_neuron():
    return pytest.importorskip("spikingjelly.activation_based.neuron").LIFNode(step_mode="m")


def test_neurons_of_other_libraries_in_modules_of_someones_own_are_theirs(caplog):
    class Kept(nn.Module):
        """The steps are another module's."""

        def __init__(self, num_steps):
            super().__init__()
            self.fold, self.neuron = Expand(num_steps), spikingjelly_neuron()

    class Timed(TimeModule):
        def __init__(self, num_steps):
            super().__init__(num_steps)
            self.neuron = spikingjelly_neuron()

    class Unaware(nn.Module):
        def __init__(self, num_steps):
            super().__init__()
            self.neuron = spikingjelly_neuron()

    for factory in (Kept, Timed, lambda steps: nn.Sequential(nn.Identity(), Timed(steps))):
        make_neuron(factory, 2)
    assert caplog.text == ""
    make_neuron(Unaware, 2)
    assert "LIFNode of spikingjelly does not know folded time" in caplog.text


def test_neurons_of_other_libraries_are_refused_unless_they_are_told_of_time():
    snntorch = pytest.importorskip("snntorch")
    factories = lambda steps: spikingjelly_neuron(), lambda steps: snntorch.Leaky(beta=0.9, init_hidden=True)
    for library, factory in zip(("spikingjelly", "snntorch"), factories, strict=True):
        with pytest.raises(ValueError, match=rf"of {library} does not know folded time.*take sb.LIF"):
            make_neuron(factory, 2)
        with pytest.raises(ValueError, match="does not know folded time"):
            SpikingNetwork(nn.Sequential(nn.Conv2d(1, 1, 1), factory(2)), num_steps=2)
    assert isinstance(make_neuron(Folded, 2), Folded)
    net = nn.Sequential(nn.Conv2d(1, 1, 1), Folded(2), nn.Flatten())
    assert SpikingNetwork(net, num_steps=2)(torch.ones(3, 1, 2, 2)).shape == (3, 4)
