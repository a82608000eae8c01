"""The neurons of other libraries are known by their classes, whatever they are derived from."""

import pytest
from torch import nn

from shortback.libraries import is_library_neuron, reset_of


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


def test_a_class_of_the_same_name_elsewhere_is_none():
    class BaseNode(nn.Module):
        pass

    assert not is_library_neuron(BaseNode())
    assert reset_of(BaseNode()) is None
