"""Whether the steps or the classes come last in an output whose samples come first, also where they are as many."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection.classes import axis_of_classes
from shortback.training import evaluate
from shortback.training._evaluate import layout_of_output

N, K = 4, 6
X = torch.rand(N, 5, generator=torch.Generator().manual_seed(0))


class Steps(nn.Module):
    """Two layers that fire over `T` steps; the output is `[N, K, T]` or `[N, T, K]`."""

    def __init__(self, num_steps, *, time_last, fires=False, softmax=False):
        super().__init__()
        torch.manual_seed(1)
        self.num_steps, self.time_last, self.fires, self.softmax = num_steps, time_last, fires, softmax
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(3)])
        self.fc = nn.Linear(5, K)

    def forward(self, x):
        x = torch.stack([x * (1 + step) for step in range(self.num_steps)], 1)
        for block in self.blocks:
            x = block(x)
        x = self.fc(x)
        x = (x > 0.1).to(x.dtype) if self.fires else x
        x = x.softmax(-1) if self.softmax else x
        return x.transpose(1, 2) if self.time_last else x


@pytest.mark.parametrize("fires", [False, True])
@pytest.mark.parametrize("time_last", [False, True])
@pytest.mark.parametrize("num_steps", [K - 1, K, K + 1])
def test_as_many_steps_as_classes(num_steps, time_last, fires):
    net = Steps(num_steps, time_last=time_last, fires=fires)
    with torch.no_grad():
        expected = net(X).mean(2 if time_last else 1)
    attached = sb.attach(net, at=["blocks.0"], sample=X, reduce="mean")
    torch.testing.assert_close(attached(X).logits, expected)
    assert layout_of_output(net, X, num_samples=N) == ("time_last" if time_last else "batch_first")


def test_classes_of_several_outputs_each_are_found_by_a_run():
    """The last layer has as many outputs as there are steps, and not as there are classes."""

    class Groups(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 2 * K)

        def forward(self, x):
            x = torch.stack([self.fc(x * (1 + step)) for step in range(2 * K)], 1)
            return x.unflatten(2, (K, 2)).mean(3).transpose(1, 2)

    torch.manual_seed(0)
    net = Groups()
    assert axis_of_classes(net, X, shape=(N, K, 2 * K), layer=net.fc) == 1


def test_what_neither_size_nor_run_tells_is_asked_for():
    net = Steps(K, time_last=True, softmax=True)
    with pytest.raises(ValueError, match=r"is \[N, T, K\] or \[N, K, T\] cannot be .* layout='batch_first' or"):
        sb.attach(net, sample=X)
    sb.attach(net, sample=X, layout="time_last")
    with pytest.raises(ValueError, match=r"returns \[N, T, K\] or \[N, K, T\], and running it does not tell which"):
        evaluate(net, [(X, torch.arange(N))])
    with pytest.raises(ValueError, match="cannot be determined"):
        axis_of_classes(net, X, shape=(N, 5, 5), layer=None)
    assert Steps(K + 1, time_last=True, softmax=True)(X).shape == (N, K, K + 1)  # here the size tells
    sb.attach(Steps(K + 1, time_last=True, softmax=True), sample=X)


class Fires(nn.Module):
    """A foreign neuron, for which `diagnose` looks for the layout."""

    def forward(self, x):
        return (x > 0).to(x.dtype) + (x - x.detach())


def test_diagnose_asks_too():
    net = Steps(K, time_last=True, softmax=True)
    net.blocks = nn.ModuleList([nn.Sequential(nn.Linear(5, 5), Fires()) for _ in range(3)])
    with pytest.raises(ValueError, match="cannot be determined"):
        sb.diagnose(net, X, torch.arange(N))
    attached = sb.attach(net, sample=X, layout="time_last", reduce="mean")
    assert sb.diagnose(attached, X, torch.arange(N)).layers
