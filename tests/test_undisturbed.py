import pytest
import torch
from torch import nn

from shortback.undisturbed import undisturbed


def test_modes_buffers_and_random_state_come_back_even_after_an_error():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    net[1].eval()
    before, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()

    def disturb():
        with undisturbed(net):
            net.train()(torch.randn(4, 3))
            assert net[0].num_batches_tracked == 1
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        disturb()
    assert [m.training for m in net.modules()] == [True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
