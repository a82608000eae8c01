import torch
from torch import nn

import shortback as sb
from shortback.training.average import WeightAverage


def test_the_average_by_hand(make_network, batch):
    net = sb.attach(make_network(), at="stages", sample=batch[0])
    weight = net.heads[0].weight
    average = WeightAverage(net, decay=0.5)
    values = []
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(weight, value)
        average.update(net)
        values.append(average.module.heads[0].weight[0, 0].item())
    assert values == [1.0, 1.5, 2.75]  # the first is taken as it is
    assert average.module.model is not net.model
    assert average.module(batch[0]).branches  # the copy has taps of its own


def test_of_counts_it_has_the_last():
    net = nn.BatchNorm1d(3)
    average = WeightAverage(net, decay=0.9)
    for count in range(1, 4):
        net(torch.randn(4, 3))
        average.update(net)
        assert average.module.num_batches_tracked.item() == count


def test_states_as_long_as_the_batch_are_no_part_of_it():
    net = nn.BatchNorm1d(3)
    net.register_buffer("state", torch.zeros(0))
    average = WeightAverage(net, decay=0.5)
    for size in (4, 2):
        net.state = torch.ones(size)
        average.update(net)
        assert average.module.state.shape == (size,)
    restored = WeightAverage(nn.BatchNorm1d(3), decay=0.5)
    restored.load_state_dict({k: v for k, v in average.state_dict().items() if "state" not in k})
    assert torch.equal(restored.module.weight, average.module.weight)
