"""The neurons of other libraries are known by their classes, whatever they are derived from."""

import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from shortback.inspection.libraries import is_integrator, is_library_neuron, reset_of, whole_modules


def test_neurons_of_the_libraries():
    jelly = pytest.importorskip("spikingjelly.activation_based.neuron")
    snntorch = pytest.importorskip("snntorch")
    norse = pytest.importorskip("norse.torch")

    class Mine(jelly.LIFNode):
        pass

    for neuron in (jelly.IFNode(), jelly.ParametricLIFNode(), Mine(), snntorch.Leaky(beta=0.9), norse.LIFCell()):
        assert is_library_neuron(neuron)
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    for other in (layer.Conv2d(1, 1, 1), layer.Dropout(), norse.Lift(nn.ReLU()), nn.ReLU()):
        assert not is_library_neuron(other)


def test_what_only_integrates():
    jelly = pytest.importorskip("spikingjelly.activation_based.neuron")
    norse = pytest.importorskip("norse.torch")

    class NonSpikingLIFNode(jelly.LIFNode):  # as SpikingJelly's examples have it
        pass

    assert all(map(is_integrator, (norse.LICell(), norse.LI(), NonSpikingLIFNode())))
    assert not any(map(is_integrator, (norse.LIFCell(), jelly.LIFNode(), nn.Linear(2, 2))))


def test_a_class_of_the_same_name_elsewhere_is_none():
    class BaseNode(nn.Module):
        pass

    assert not is_library_neuron(BaseNode())
    assert reset_of(BaseNode()) is None


def test_what_a_neuron_is_made_of_is_no_module_of_its_own():
    jelly = pytest.importorskip("spikingjelly.activation_based.neuron")
    net = nn.Sequential(nn.Linear(2, 2), jelly.ParametricLIFNode())
    assert [name for name, _ in net.named_modules()] == ["", "0", "1", "1.surrogate_function"]
    assert [name for name, _ in whole_modules(net)] == ["", "0", "1"]


def test_what_makes_the_weight_of_a_layer_is_no_module_by_itself():
    net = nn.Sequential(weight_norm(nn.Linear(2, 2)), nn.ReLU())
    assert [name for name, _ in whole_modules(net)] == ["", "0", "1"]
