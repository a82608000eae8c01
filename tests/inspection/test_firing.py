import pytest
import torch
from torch import nn

from shortback.health import firing_rates
from shortback.neurons import LIF


def test_rates_by_hand():
    model = nn.Sequential(
        LIF(2, decay=0.0, backend="reference"), nn.Flatten(), LIF(2, threshold=50, backend="reference")
    )
    batches = [torch.tensor([[2.0, 0.0], [2.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])]
    assert firing_rates(model.train(), batches) == {"0": pytest.approx(4 / 8), "2": 0.0}
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_modules_keep_their_modes_after_an_error_too():
    model = nn.Sequential(nn.BatchNorm1d(2).eval(), LIF(2, backend="reference"))
    with pytest.raises(ValueError, match="got 3 rows"):
        firing_rates(model, [torch.zeros(3, 2)])
    assert [m.training for m in model.modules()] == [True, False, True]
    assert not any(m._forward_hooks for m in model.modules())


class Remembers(nn.Module):
    """A neuron of anyone's making, which returns its spikes by name and remembers its membrane."""

    def __init__(self):
        super().__init__()
        self.membrane = 0.0

    def reset(self):
        self.membrane = 0.0

    def forward(self, x):
        total = self.membrane + x
        spikes = (total >= 1).to(x.dtype)
        self.membrane = total * (1 - spikes)
        return {"membrane": total, "spikes": spikes}


class TwoSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.neuron = Remembers()

    def forward(self, x):
        return torch.stack([self.neuron(x)["spikes"] for _ in range(2)]).mean(0)


def test_neurons_of_anyones_making_are_found_and_left_as_they_were():
    model = TwoSteps()
    model(torch.tensor([[0.4, 0.4]]))
    before = model.neuron.membrane
    batches = iter([torch.tensor([[0.5, 2.0], [0.1, 0.2]]), torch.tensor([[0.6, 0.1]])])
    assert firing_rates(model.train(), batches) == {"neuron": pytest.approx((1 + 2 + 1) / 12)}  # spikes of both steps
    assert torch.equal(model.neuron.membrane, before)
    assert model.training
    assert firing_rates(model, []) == {}


def test_neurons_of_a_library_alone_and_beside_ours():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    x = torch.tensor([[3.0, 0.0], [3.0, 3.0]])
    theirs = neuron.IFNode(v_threshold=1.0)
    assert firing_rates(nn.Sequential(theirs, nn.Flatten()), [x, x]) == {"0": 0.75}
    both = nn.Sequential(theirs, LIF(1, backend="reference"))
    assert firing_rates(both, [x]) == {"0": 0.75, "1": 0.75}
    assert firing_rates(both, [x]) == {"0": 0.75, "1": 0.75}


def test_what_is_no_batch_is_refused():
    model = nn.Sequential(nn.Linear(4, 3), LIF(3, backend="reference"))
    with pytest.raises(ValueError, match=r"pass \[x\]"):
        firing_rates(model, torch.zeros(6, 4))
    with pytest.raises(ValueError, match=r"got list: pass x of \(x, y\)"):
        firing_rates(model, [[torch.zeros(6, 4), torch.zeros(6)]])
