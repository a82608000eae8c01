"""Networks of other libraries keep a state from one batch to the next; here it is reset, and left alone by a look."""

import gc
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

import shortback as sb
from tests.networks.zoo import OverSteps

N = 4


def spikingjelly_net():
    layers = pytest.importorskip("spikingjelly.activation_based.layer")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    return nn.Sequential(
        layers.Conv2d(1, 4, 3, step_mode="s"),
        nn.Sequential(neuron.LIFNode(detach_reset=True)),
        layers.AdaptiveAvgPool2d(1, step_mode="s"),
        nn.Flatten(),
        nn.Linear(4, 10),
    )


def snntorch_net():
    snntorch = pytest.importorskip("snntorch")
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Sequential(snntorch.Leaky(beta=0.9, init_hidden=True)),  # nested, where the library's own reset misses it
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )


@pytest.fixture(params=[spikingjelly_net, snntorch_net], ids=["spikingjelly", "snntorch"])
def net(request):
    torch.manual_seed(0)
    return OverSteps(request.param())


@pytest.fixture
def x():
    return 3 * torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def stacked(net, x):
    with torch.no_grad():
        return torch.stack(net(x))


def test_after_a_reset_a_batch_gives_what_it_gave(net, x):
    first = stacked(net, x)
    assert not torch.equal(stacked(net, x), first)
    assert sb.reset_states(net) == 1
    assert torch.equal(stacked(net, x), first)
    sb.reset_states(net)
    net(x)[0].sum().backward()
    sb.reset_states(net)
    net(x)[0].sum().backward()  # the graph of the batch before is let go of


def test_networks_without_a_state_have_none_to_reset(make_network):
    assert sb.reset_states(make_network()) == 0


def test_attaching_stripping_and_diagnosing_leave_the_state_alone(net, x):
    y = torch.arange(N)
    reference = stacked(net, x), stacked(net, x)
    sb.reset_states(net)
    assert torch.equal(stacked(net, x), reference[0])
    keys = list(net.state_dict())
    with_branches = sb.attach(net, at=["network.1"], sample=x[:2], layout="steps", reduce="mean")
    sb.diagnose(with_branches, x, y)
    assert sb.strip(with_branches) is net
    assert torch.equal(stacked(net, x), reference[1])  # the second batch, as if nothing had been between
    assert list(net.state_dict()) == keys


def test_it_learns_through_the_branch_alone(net, x):
    y = torch.arange(N)
    with_branches = sb.attach(net, at=["network.1"], sample=x, layout="steps", reduce="mean")
    optimizer = torch.optim.Adam(with_branches.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        sb.reset_states(with_branches)
        out = with_branches(x)
        loss = nn.functional.cross_entropy(out.branches["network.1"], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert net.network[0].weight.grad.abs().sum() > 0
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures the memory of the process as Linux says it")
def test_nothing_piles_up_over_a_thousand_batches(net, x):
    y = torch.arange(N)
    with_branches = sb.attach(net, at=["network.1"], sample=x, reduce="mean")
    optimizer = torch.optim.SGD(with_branches.parameters(), lr=0.01)
    tensors, megabytes = [], []
    for batch in range(1000):
        sb.reset_states(with_branches)
        sb.shortcut_loss(with_branches(x), y, coefficient=0.5).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch in (199, 999):
            gc.collect()
            tensors.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
            megabytes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)
    assert tensors[1] <= tensors[0]  # fewer where those of earlier tests are let go of
    assert megabytes[1] < megabytes[0] + 8  # a graph kept would be some 0.1 MB a batch


def test_the_libraries_own_resets_go_on_working(x):
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    model = OverSteps(spikingjelly_net())
    first = stacked(model, x)
    functional.reset_net(model)  # from here on it goes by a list of modules that it keeps
    net = sb.attach(model, at=["network.1"], sample=x, reduce="mean")
    for reset in (net, model):
        model(x)
        functional.reset_net(reset)
        assert torch.equal(stacked(model, x), first)
        functional.reset_net(reset)
    assert sb.strip(net) is model
    model(x)
    functional.reset_net(model)
    assert torch.equal(stacked(model, x), first)


class ResetsWeights(nn.Module):
    """Sets its weights anew, in a way that raises no version, or by another layer."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.relu, self.how = nn.Linear(4, 4), nn.ReLU(), how

    def forward(self, x):
        return self.relu(self.layer(x))


class ByData(ResetsWeights):
    def reset(self):
        self.layer.weight.data.normal_()


class ByLayer(ResetsWeights):
    def reset(self):
        self.layer = nn.Linear(4, 4)


class Later(ResetsWeights):
    def reset(self):
        if self.how == "later":
            self.layer = nn.Linear(4, 4)


@pytest.mark.parametrize("cls", [ByData, ByLayer])
def test_a_reset_that_changes_weights_is_refused_and_undone(cls):
    net = nn.Sequential(cls("now"), nn.Linear(4, 3))
    before, x = [(p, p.detach().clone()) for p in net.parameters()], torch.randn(4, 4)
    for look in (lambda: sb.attach(net, at=["0"], sample=x), lambda: sb.diagnose(net, x, torch.arange(4) % 3)):
        with pytest.raises(ValueError, match=rf"reset\(\) of {cls.__name__} changed parameters"):
            look()
        assert all(p is was and torch.equal(p, value) for p, (was, value) in zip(net.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="changed parameters"):
        sb.reset_states(net)


def test_a_reset_that_changes_layers_later_is_refused_too():
    net = nn.Sequential(Later("never"), nn.Linear(4, 3))
    assert sb.reset_states(net) == 1
    net[0].how = "later"
    with pytest.raises(ValueError, match="changed parameters"):
        sb.reset_states(net)


class ToNaN(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, float("nan")]]))

    def reset(self):
        self.weight.data[0, 0] = float("nan")


def test_a_reset_to_nan_changes_parameters_too():
    net = ToNaN()
    with pytest.raises(ValueError, match="changed parameters"):
        sb.reset_states(net)
    assert net.weight[0, 0] == 1
