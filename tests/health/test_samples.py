"""The first samples of a batch, along whichever axis they lie."""

import torch
from torch import nn

import shortback as sb
from shortback.health import first_samples


class OverFrames(nn.Module):
    """`[T, N, 6]` or, with `axis=1`, `[N, T, 6]`."""

    def __init__(self, axis=0):
        super().__init__()
        self.axis, self.a, self.neuron, self.fc = axis, nn.Linear(6, 8), sb.LIF(threshold=100.0), nn.Linear(8, 5)

    def forward(self, x):
        frames = x.unbind(self.axis)
        return sum(self.fc(self.neuron(self.a(frame))) for frame in frames) / len(frames)


def test_of_as_many_steps_as_samples_a_run_tells_them():
    x, y = torch.randn(25, 25, 6), torch.arange(25) % 5
    few, labels = first_samples(OverFrames(0), x, y, 16)
    assert torch.equal(few, x[:, :16])
    assert torch.equal(labels, y[:16])
    few, _ = first_samples(OverFrames(1), x, y, 16)
    assert torch.equal(few, x[:16])
    assert sb.diagnose(OverFrames(0), x, y).num_tried_on == 16  # of a network that is dead


def test_where_a_run_says_nothing_all_are_taken():
    class Constant(nn.Linear):
        def forward(self, x):
            return super().forward(torch.zeros(25, 6))

    x, y = torch.randn(25, 25, 6), torch.arange(25) % 5
    few, labels = first_samples(Constant(6, 5), x, y, 16)
    assert few is x
    assert labels is y


def test_elsewhere_the_sizes_tell(batch):
    x, y = batch
    few, labels = first_samples(nn.Flatten(), x, y, 3)
    assert (len(few), len(labels)) == (3, 3)
    few, labels = first_samples(OverFrames(0), torch.randn(7, 25, 6), torch.arange(25), 16)
    assert (few.shape, len(labels)) == ((7, 16, 6), 16)
