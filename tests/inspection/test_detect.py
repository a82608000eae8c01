"""The layout of a network is found by running it, and where it cannot be, that is said."""

import copy

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection.detect import find_layouts

T, N, K = 3, 4, 10


class Recurrent(nn.Module):
    """Membranes that fire over `[T, N, ...]`, so that steps and samples cannot be exchanged."""

    def __init__(self, threshold=0.5):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = 0.5 * v + step
            out.append((v > self.threshold).to(x.dtype))
            v = v * (1 - out[-1])
        return torch.stack(out)


class Sequence(nn.Module):
    """A network on `[T, N, 1, H, W]`, or `[N, T, ...]`, with a convolution on folded time."""

    def __init__(self, *, batch_first=False, batch_major=False, threshold=0.5, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.batch_first, self.batch_major = batch_first, batch_major
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.neuron, self.fc = Recurrent(threshold), nn.Linear(6, K)

    def forward(self, x):
        if self.batch_first:
            x = x.transpose(0, 1)
        folded = x.transpose(0, 1).flatten(0, 1) if self.batch_major else x.flatten(0, 1)
        current = self.norm(self.conv(folded))
        if self.batch_major:
            current = current.unflatten(0, (-1, len(x))).transpose(0, 1)
        else:
            current = current.unflatten(0, (len(x), -1))
        logits = self.fc(self.neuron(current).mean((3, 4)))
        return logits.transpose(0, 1) if self.batch_first else logits


def modules(net):
    return {name: net.get_submodule(name) for name in ("conv", "neuron", "fc")}


def sequence(*shape):
    return torch.rand(*shape, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("net", "shape", "axis", "expected"),
    [
        (Sequence(), (T, N), 1, ("folded", "time_first", "time_first", "time_first")),
        (Sequence(), (N, N), 1, ("folded", "time_first", "time_first", "time_first")),
        (Sequence(), (T, 1), 1, ("folded", "time_first", "time_first", "time_first")),
        (Sequence(batch_major=True), (T, N), 1, ("folded_batch", "time_first", "time_first", "time_first")),
        (Sequence(batch_first=True), (N, T), 0, ("folded", "time_first", "time_first", "batch_first")),
    ],
    ids=["time first", "as many steps as samples", "one sample", "batch-major", "batch first"],
)
def test_sizes_and_values_tell(net, shape, axis, expected):
    found = find_layouts(net, sequence(*shape), modules(net))
    assert found.batch_axis == axis
    assert (*found.modules.values(), found.output) == expected


def test_one_sample_folded_either_way_is_the_same_to_a_branch():
    net = Sequence()
    found = find_layouts(net, sequence(T, 1), modules(net))
    assert found.modules["conv"] in ("folded", "folded_batch")


@pytest.mark.parametrize("norm", [False, True])
def test_neurons_that_do_not_fire_on_the_sample_are_made_to(norm):
    net = Sequence(batch_major=True, threshold=1.0, norm=norm)
    x = 1e-3 * sequence(T, N)
    assert net(x).eq(net.fc.bias).all()
    before = copy.deepcopy(net.state_dict())
    found = find_layouts(net, x, modules(net))
    assert found.modules == {"conv": "folded_batch", "neuron": "time_first", "fc": "time_first"}
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_neurons_that_never_fire_leave_it_open_and_it_asks():
    net = Sequence(threshold=1e9)
    with pytest.raises(ValueError, match=r"cannot be determined by running it: use layout='folded' or 'folded_batch'"):
        sb.attach(net, at=["conv"], sample=sequence(T, N))
    sb.attach(net, at=["neuron"], sample=sequence(T, N), layout="time_first")


class Mixing(nn.Module):
    """A layer that subtracts the mean of the batch, and an output that does not."""

    def __init__(self):
        super().__init__()
        self.mixing, self.fc = Centre(), nn.Linear(64, K)

    def forward(self, x):
        self.mixing(x)
        return self.fc(x.flatten(1))


class Centre(nn.Module):
    def forward(self, x):
        return x - x.sort(0).values


def test_a_module_whose_samples_touch_each_other_is_refused():
    with pytest.raises(ValueError, match="returns nothing that belongs to one sample alone; use layout="):
        sb.attach(Mixing(), at=["mixing"], sample=sequence(N))
    with pytest.raises(ValueError, match="cannot be determined"):
        sb.attach(nn.Sequential(Centre(), nn.Flatten(), nn.Linear(64, K)), at=["0"], sample=sequence(N))


class Folded(nn.Module):
    """Takes and returns what is folded, one way or the other."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.order, self.conv, self.neuron, self.fc = order, nn.Conv2d(1, 6, 3), Recurrent(0.3), nn.Linear(6, K)

    def forward(self, x):
        current = self.conv(x).mean((2, 3))
        if self.order == "folded":
            spikes = self.neuron(current.unflatten(0, (T, -1))).flatten(0, 1)
        else:
            spikes = self.neuron(current.unflatten(0, (-1, T)).transpose(0, 1)).transpose(0, 1).flatten(0, 1)
        return self.fc(spikes + current)


@pytest.mark.parametrize("order", ["folded", "folded_batch"])
def test_an_input_that_is_folded_itself(order):
    net, x = Folded(order), sequence(T * N)
    with pytest.raises(ValueError, match="does not divide the 12 rows"):
        find_layouts(net, x, {}, num_steps=5)
    found = find_layouts(net, x, {"conv": net.conv}, num_steps=T)
    assert (found.modules["conv"], found.output) == (order, order)
    with_branches = sb.attach(net, at=["conv"], sample=x, reduce="mean", num_steps=T)
    out = with_branches(x)
    sizes, axis = ((T, N), 0) if order == "folded" else ((N, T), 1)
    torch.testing.assert_close(out.logits, net(x).unflatten(0, sizes).mean(axis))
    features = net.conv(x).mean((2, 3)).unflatten(0, sizes).mean(axis)
    torch.testing.assert_close(out.branches["conv"], with_branches.heads[0](features))


def test_random_numbers_states_and_modes_are_left_alone():
    net = Sequence(norm=True).train()
    net.fc.eval()
    random = torch.get_rng_state()
    find_layouts(net, sequence(T, N), modules(net))
    assert torch.equal(torch.get_rng_state(), random)
    assert (net.norm.training, net.fc.training) == (True, False)
    assert not any(m._forward_hooks for m in net.modules())


class SharedNeuron(nn.Module):
    """One neuron for two layers, which takes all steps at once or one of them."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(0)
        self.layout, self.neuron = layout, nn.Identity()
        self.fc1, self.fc2, self.fc = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, K)

    def fire(self, x):
        if self.layout == "time_first":
            return self.neuron(x)
        if self.layout == "steps":
            return torch.stack([self.neuron(step) for step in x])
        if self.layout == "folded":
            return self.neuron(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.neuron(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (x.shape[1], -1)).transpose(0, 1)

    def forward(self, x):
        return self.fc(self.fire(self.fc2(self.fire(self.fc1(x.flatten(2)).cumsum(0)))))


@pytest.mark.parametrize("layout", ["time_first", "steps", "folded", "folded_batch"])
@pytest.mark.parametrize("num_samples", [N, T])
def test_several_calls_of_a_module_have_the_layout_of_each(layout, num_samples):
    net = SharedNeuron(layout)
    found = find_layouts(net, sequence(T, num_samples), {"neuron": net.neuron})
    assert found.modules == {"neuron": layout}
    with pytest.raises(ValueError, match="is called 2 times" if layout != "steps" else "several places"):
        sb.attach(net, at=["neuron"], sample=sequence(T, num_samples))
