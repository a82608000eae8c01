import pytest
from torch import nn

import shortback as sb
from shortback.inspection.backends import with_backend


def test_each_neuron_gets_its_own_backend_back_after_an_error_too():
    net = nn.Sequential(sb.LIF(1, backend="reference"), sb.LIF(1, backend="compiled"))

    def fail():
        with with_backend("reference", net):
            assert [neuron.backend for neuron in net] == ["reference", "reference"]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [neuron.backend for neuron in net] == ["reference", "compiled"]
    with with_backend(None, net):
        assert [neuron.backend for neuron in net] == ["reference", "compiled"]
