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
