import torch
from torch import nn

from shortback.inspection.probes import probes, set_norms


def test_a_stronger_input_comes_last_and_whole_numbers_have_none():
    found = list(probes(torch.zeros(2, 3)))
    assert [norms_train for _, norms_train in found] == [False, True, False, True]
    assert found[0][0].max() == 0
    assert 0 < found[2][0].max() <= 4
    assert len(list(probes(torch.zeros(2, 3, dtype=torch.long)))) == 2


def test_norms_alone_change_their_mode():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout()).eval()
    set_norms(net, training=True)
    assert [module.training for module in net] == [True, False]
