"""Weights scaled to a firing rate, with rates counted by hand, on networks of several libraries' kinds."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import shortback as sb
from tests.health.foreign import OneStep, Spike
from tests.health.test_probe import assert_same, snapshot

T = 3


def deep(*, depth=6, norm=False, neuron=None):
    """Plain convolutions: without norms, PyTorch's own initialization lets nothing fire from the second layer on."""
    torch.manual_seed(0)
    layers, channels = [], 1
    for _ in range(depth):
        layers.append(nn.Conv2d(channels, 8, 3, padding=1))
        layers += [nn.BatchNorm2d(8)] if norm else []
        layers.append(sb.LIF(T, backend="reference") if neuron is None else neuron())
        channels = 8
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return net if neuron else sb.SpikingNetwork(net, num_steps=T)


def freeze(layer):
    layer.requires_grad_(requires_grad=False)


def silence(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def pairs(scaling):
    return {layer.neurons: layer.weights for layer in scaling.layers}


def images(num_samples=16):
    return torch.randn(num_samples, 1, 10, 10, generator=torch.Generator().manual_seed(1))


def rates_of(net, x, kind):
    """Counted by a hook of its own, in the mode the network is in."""
    spikes = []
    handles = [m.register_forward_hook(lambda m, i, o: spikes.append(o)) for m in net.modules() if isinstance(m, kind)]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return [(s != 0).double().mean().item() for s in spikes]


@pytest.mark.parametrize("firing_rate", [0.05, 0.1, 0.3])
def test_a_dead_network_fires_at_the_rate_asked_for(firing_rate):
    net, x = deep(), images()
    before, original = rates_of(net, x, sb.LIF), copy.deepcopy(net.state_dict())
    assert before[2:] == [0.0] * 4
    scaling = sb.scale_to_rate(net, x, firing_rate=firing_rate)
    after = rates_of(net, x, sb.LIF)
    assert [layer.before for layer in scaling.layers] == pytest.approx(before)
    assert [layer.after for layer in scaling.layers] == pytest.approx(after)
    convolutions = ["0", "2", "4", "6", "8", "10"]
    assert [layer.weights for layer in scaling.layers] == [(name,) for name in convolutions]
    assert [layer.neurons for layer in scaling.layers] == ["1", "3", "5", "7", "9", "11"]
    assert scaling.num_scaled >= 5
    for layer, rate in zip(scaling.layers, after, strict=True):
        if layer.factor == 1:
            assert firing_rate / 3 <= rate <= 0.6
        else:
            assert firing_rate / 1.1 <= rate <= 1.1 * firing_rate
        for part in ("weight", "bias"):
            key = f"network.{layer.weights[0]}.{part}"
            assert torch.equal(net.state_dict()[key], original[key] * layer.factor)
    untouched = set(original) - {f"network.{name}.{part}" for name in convolutions for part in ("weight", "bias")}
    assert untouched
    assert all(torch.equal(net.state_dict()[key], original[key]) for key in untouched)


def test_the_table_says_what_is_left_as_it_is():
    first, second, *rows = str(sb.scale_to_rate(deep(), images())).splitlines()
    assert first == "wanted: 10.00%; rates from 3.33% to 60% are left as they are"
    assert second.split() == ["neurons", "weights", "factor", "rate", "before", "after"]
    assert [row.split()[:2] for row in rows] == [[str(i + 1), str(i)] for i in range(0, 12, 2)]


def test_the_gradient_reaches_all_layers_afterwards():
    net, x, y = deep(depth=10), images(), torch.arange(16) % 10
    dead = sb.diagnose(net, x, y)
    assert dead.judgement.verdict == "dead"
    best = dead.suggestions[0]
    assert (best.python, best.settings) == ("sb.scale_to_rate(net, x)", ("model.firing_rate=0.1",))
    assert best.helps
    assert "+ weights scaled to a firing rate of 10 % in each layer: healthy" in str(dead)
    assert "(sb.scale_to_rate(net, x); with a recipe -s model.firing_rate=0.1)" in str(dead)
    sb.scale_to_rate(net, x[:4])  # as was tried
    awake = sb.diagnose(net, x, y)
    assert (awake.judgement.verdict, awake.judgement.effective_depth) == ("healthy", 11)
    assert awake.judgement.slope == pytest.approx(best.after.slope)


@pytest.mark.parametrize("bias", [4.0, 500.0])
def test_a_saturated_network_is_calmed(bias):
    net, x = deep(depth=3), images()
    with torch.no_grad():
        for layer in net.network:
            if isinstance(layer, nn.Conv2d):
                layer.bias += bias  # a current above the threshold at every step
    assert min(rates_of(net, x, sb.LIF)) > 0.9
    scaling = sb.scale_to_rate(net, x)
    assert all(layer.factor < 2 / bias and layer.left is None for layer in scaling.layers)
    assert all(0.1 / 3 <= rate <= 0.6 for rate in rates_of(net, x, sb.LIF))


class Residual(nn.Module):
    """Spikes of a block are added to those of its input: however small the block's weights, these remain."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.conv = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)
        self.fires, self.sums = (sb.LIF(T, backend="reference") for _ in range(2))
        nn.init.constant_(self.first.bias, 0.75)
        nn.init.constant_(self.conv.bias, 3.0)

    def forward(self, x):
        x = self.fires(self.first(x))
        return self.head(self.sums(2 * x + self.conv(x)).mean((2, 3)))


def test_beside_a_residual_a_layer_is_scaled_no_more_than_it_takes():
    net, x = sb.SpikingNetwork(Residual(), num_steps=T), images()
    scaling = sb.scale_to_rate(net, x, firing_rate=0.02)
    block = scaling.layers[1]
    assert block.before > 0.6 >= block.after
    assert block.factor == pytest.approx(0.25)


def test_what_fires_is_left_as_it_is(make_network, batch):
    for net, x in ((make_network(), batch[0]), (deep(norm=True), images())):
        before = copy.deepcopy(net.state_dict())
        scaling = sb.scale_to_rate(net, x, firing_rate=0.15)
        assert scaling.num_scaled == 0
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_nothing_but_weights_changes(training):
    net, x = deep(norm=True), images()
    with torch.no_grad():
        for norm in net.network:
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight *= 0.1
    net.train(training)
    net.network[1].eval()  # a frozen norm stays frozen, in training
    before = snapshot(net)
    scaling = sb.scale_to_rate(net, x)
    assert {layer.weights for layer in scaling.layers if layer.factor > 1} >= {("4",), ("7",), ("10",)}  # the norms
    after = snapshot(net)
    for layer in scaling.layers:
        for part in ("weight", "bias"):
            key = f"network.{layer.weights[0]}.{part}"
            assert torch.equal(after[1].pop(key), before[1].pop(key) * layer.factor)
    assert_same(before, after)


class Stepwise(nn.Module):
    """A loop over time as snnTorch's users write it: an encoder, two layers, neurons that return their membrane too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.one, self.two = OneStep(), OneStep(), OneStep()
        self.first, self.second = nn.Linear(100, 20), nn.Linear(20, 10)

    def forward(self, x):
        mem_0 = mem_1 = mem_2 = None
        counts = 0
        for _ in range(T):
            spikes, mem_0 = self.encoder(x.flatten(1), mem_0)
            spikes, mem_1 = self.one(self.first(spikes), mem_1)
            spikes, mem_2 = self.two(self.second(spikes), mem_2)
            counts = counts + spikes
        return counts


def test_a_loop_over_time():
    net, x = Stepwise(), images()
    scaling = sb.scale_to_rate(net, x, firing_rate=0.2)
    assert pairs(scaling) == {"encoder": (), "one": ("first",), "two": ("second",)}
    assert all(layer.factor > 1 for layer in scaling.layers[1:])
    counts = []
    handle = net.two.register_forward_hook(lambda m, i, o: counts.append(o[0]))
    net(x)
    handle.remove()
    assert torch.stack(counts).mean().item() == pytest.approx(0.2, rel=0.1)
    assert scaling.layers[2].after == pytest.approx(torch.stack(counts).mean().item())


def test_one_neuron_module_after_several_layers():
    """As torchvision's blocks use one ReLU twice: each use follows a layer of its own."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.fires, self.head = sb.LIF(T, backend="reference"), nn.Linear(8, 10)

        def forward(self, x):
            x = self.fires(self.b(self.fires(self.a(x))))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    net, x = sb.SpikingNetwork(Block(), num_steps=T), images()
    scaling = sb.scale_to_rate(net, x)
    assert [(layer.weights, layer.neurons) for layer in scaling.layers] == [(("a",), "fires"), (("b",), "fires")]
    assert [layer.after for layer in scaling.layers] == pytest.approx(rates_of(net, x, sb.LIF))
    assert scaling.layers[1].after == pytest.approx(0.1, rel=0.1)


class Firing(nn.Linear):
    """A layer that fires itself."""

    def forward(self, x):
        return (F.linear(x, self.weight, self.bias) > 1).to(x.dtype)


def test_a_layer_that_fires_itself():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), Firing(100, 50), Firing(50, 50), nn.Linear(50, 10))
    scaling = sb.scale_to_rate(net, images())
    assert pairs(scaling) == {"1": ("1",), "2": ("2",)}
    assert scaling.layers[1].factor > 1
    assert scaling.layers[1].after == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("name", ["LIFNode", "ParametricLIFNode"])
def test_spikingjelly_neurons(name):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    net = deep(neuron=getattr(neuron, name))
    x = images()
    scaling = sb.scale_to_rate(net, x)
    sb.reset_states(net)
    assert rates_of(net, x, neuron.BaseNode) == pytest.approx([layer.after for layer in scaling.layers])
    assert all(0.1 / 3 <= layer.after <= 0.3 for layer in scaling.layers)
    assert scaling.num_scaled >= 5


def test_branches_are_left_alone():
    x = images()
    plain, net = deep(), sb.attach(deep(), at="blocks", sample=x)
    heads = copy.deepcopy(net.heads.state_dict())
    alone, with_branches = sb.scale_to_rate(plain, x), sb.scale_to_rate(net, x)
    assert alone == with_branches
    assert all(torch.equal(value, heads[key]) for key, value in net.heads.state_dict().items())


COMPUTED = "the weight is computed, as by torch.nn.utils.parametrize or spectral_norm"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (freeze, "the weights are frozen"),
        (nn.utils.parametrizations.spectral_norm, COMPUTED),
        (nn.utils.spectral_norm, COMPUTED),
        (silence, "no factor gives such a rate"),
    ],
)
def test_what_cannot_be_scaled_is_named(change, reason):
    net, x = deep(depth=2), images()
    change(net.network[2])
    before = {key: value.clone() for key, value in net.network[2].state_dict().items()}
    scaling = sb.scale_to_rate(net, x)
    assert (scaling.layers[1].factor, scaling.layers[1].left) == (1, reason)
    assert f"not scaled: {reason}" in str(scaling)
    assert all(torch.equal(value, before[key]) for key, value in net.network[2].state_dict().items())


def test_a_norm_without_weights_and_shared_layers_cannot_be_scaled():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1, affine=False)
    neurons = [sb.LIF(T, threshold=threshold, backend="reference") for threshold in (3.0, 9.0, 9.0)]
    layers = conv, neurons[0], conv, neurons[1], nn.Flatten(), nn.Linear(100, 10)
    shared = sb.scale_to_rate(sb.SpikingNetwork(nn.Sequential(*layers), num_steps=T), images())
    assert shared.layers[1].left == "the weights feed neurons before these, too"
    layers = norm, neurons[2], nn.Flatten(), nn.Linear(100, 10)
    bare = sb.scale_to_rate(sb.SpikingNetwork(nn.Sequential(*layers), num_steps=T), images())
    assert bare.layers[0].left == "BatchNorm2d has no weight, as with affine=False"


class Stateful(nn.Module):
    """A neuron that remembers its membrane, as users write it; `decay` and `threshold` may be learned."""

    def __init__(self, *, learned=False):
        super().__init__()
        self.v, made = None, nn.Parameter if learned else torch.Tensor
        self.decay, self.threshold = made(torch.tensor(0.5)), made(torch.tensor(1.0))

    def reset(self):
        self.v = None

    def forward(self, x):
        v = x if self.v is None else self.decay * self.v + x
        spikes = Spike.apply(v - self.threshold)
        self.v = v * (1 - spikes)
        return spikes


class Chain(nn.Module):
    """Linear layers and neurons, in a loop over time."""

    def __init__(self, *, depth=3, neuron=Stateful, wrap=lambda layer: layer):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(100 if i == 0 else 30, 30) for i in range(depth)]
        for layer in layers:
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(map(wrap, layers))
        self.neurons = nn.ModuleList(neuron() for _ in range(depth))
        self.head = nn.Linear(30, 10)

    def forward(self, x):
        out = 0
        for _ in range(T):
            h = x.flatten(1)
            for layer, neuron in zip(self.layers, self.neurons, strict=True):
                h = neuron(layer(h))
            out = out + self.head(h)
        return out


def test_a_layer_that_is_computed_once_before_the_loop():
    """The readout is called before the neuron from the second step on, and feeds it not at all."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.fires, self.readout = nn.Linear(100, 64), Stateful(), nn.Linear(64, 10)

        def forward(self, x):
            current = self.first(x.flatten(1) / 10)
            return sum(self.readout(self.fires(current)) for _ in range(8))

    net, x = Net(), images()
    scaling = sb.scale_to_rate(net, x, firing_rate=0.05)
    assert pairs(scaling) == {"fires": ("first",)}
    spikes = []
    handle = net.fires.register_forward_hook(lambda m, i, o: spikes.append(o))
    sb.reset_states(net)
    net(x)
    handle.remove()
    assert torch.stack(spikes).mean().item() == pytest.approx(scaling.layers[0].after)
    assert scaling.layers[0].after == pytest.approx(0.05, rel=0.1)


def test_recurrent_weights_are_left_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.feed, self.recurrent = nn.Linear(100, 30), nn.Linear(30, 30)
            self.fires, self.head = Stateful(), nn.Linear(30, 10)

        def forward(self, x):
            spikes, out = x.new_zeros(len(x), 30), 0
            for _ in range(T):
                spikes = self.fires(self.feed(x.flatten(1) / 5) + self.recurrent(spikes))
                out = out + self.head(spikes)
            return out

    net = Net()
    recurrent = net.recurrent.weight.clone()
    scaling = sb.scale_to_rate(net, images())
    assert pairs(scaling) == {"fires": ("feed",)}
    assert scaling.layers[0].factor > 1
    assert torch.equal(net.recurrent.weight, recurrent)


def test_layers_whose_outputs_are_added_are_scaled_alike():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.shortcut = (nn.Conv2d(c, 8, 3, padding=1) for c in (1, 8, 1))
            self.one, self.two = (sb.LIF(T, backend="reference") for _ in range(2))
            self.head = nn.Linear(8, 10)

        def forward(self, x):
            main = self.b(self.one(self.a(x)))
            return self.head(self.two(main + self.shortcut(x) / 10).mean((2, 3)))

    net, x = sb.SpikingNetwork(Net(), num_steps=T), images().expand(T, -1, -1, -1, -1).clone()
    before = copy.deepcopy(net.state_dict())
    scaling = sb.scale_to_rate(net, x)
    assert pairs(scaling) == {"one": ("a",), "two": ("b", "shortcut")}
    factor = scaling.layers[1].factor
    assert factor > 1
    for name in ("b", "shortcut"):
        key = f"network.{name}.weight"
        assert torch.equal(net.state_dict()[key], before[key] * factor)


class FiresItself(nn.Linear):
    """A layer that is a neuron, too, with a threshold that is learned."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.threshold = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return Spike.apply(super().forward(x) - self.threshold)


def test_parameters_of_neurons_are_left_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), FiresItself(100, 30), FiresItself(30, 30), nn.Linear(30, 10))
    assert sb.scale_to_rate(net, images() / 3).num_scaled == 2
    assert {net[i].threshold.item() for i in (1, 2)} == {1.0}
    learned = Chain(neuron=lambda: Stateful(learned=True))
    assert sb.scale_to_rate(learned, images() / 3).num_scaled
    assert all(p.item() in (0.5, 1.0) for neuron in learned.neurons for p in neuron.parameters())


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_with_weight_norm_the_length_is_scaled():
    net = Chain(wrap=nn.utils.weight_norm)
    directions = [layer.weight_v.clone() for layer in net.layers]
    scaling = sb.scale_to_rate(net, images() / 3)
    assert scaling.num_scaled
    assert scaling.layers[-1].after == pytest.approx(0.1, rel=0.1)
    assert all(torch.equal(layer.weight_v, v) for layer, v in zip(net.layers, directions, strict=True))


def test_neurons_that_nothing_reaches_are_not_made_to_fire_by_their_bias():
    net = Chain()
    freeze(net.layers[1])
    with torch.no_grad():
        net.layers[1].weight *= 0.01
        net.layers[2].bias += 0.1
    scaling = sb.scale_to_rate(net, images())
    assert [layer.left for layer in scaling.layers][1:] == [
        "the weights are frozen",
        "nothing reaches them: the input is 0, or the neurons before do not fire",
    ]


@pytest.mark.parametrize("firing_rate", [0.4, 0.8])
def test_what_always_fires_is_too_much_for_any_rate(firing_rate):
    net = Chain()
    with torch.no_grad():
        for layer in net.layers:
            layer.bias += 50
    scaling = sb.scale_to_rate(net, images(), firing_rate=firing_rate)
    assert all(layer.before == 1 and layer.factor < 1 for layer in scaling.layers)
    assert all(layer.after <= (1 + firing_rate) / 2 for layer in scaling.layers)


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_an_interrupted_call_leaves_the_weights_as_they_were(error):
    class Failing(Chain):
        def forward(self, x):
            if self.layers[1].weight.std() > 1.5 * std:  # in the search for the second layer's factor
                raise error
            return super().forward(x)

    net = Failing()
    std = net.layers[1].weight.std().item()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(error):
        sb.scale_to_rate(net, images() / 10)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_tensor_that_shares_its_memory_with_a_weight_does_not_undo_it():
    net = Chain()
    net.register_buffer("tied", net.layers[1].weight.detach())
    original = net.tied.clone()
    factor = sb.scale_to_rate(net, images() / 3).layers[1].factor
    assert factor > 1
    assert torch.equal(net.layers[1].weight, original * factor)


def test_a_backward_pass_to_come_still_works_where_nothing_was_scaled():
    net = Chain(depth=2)
    silence(net.layers[1])
    x = images()
    loss = net(x).square().mean()
    sb.reset_states(net)
    scaling = sb.scale_to_rate(net, x)
    assert (scaling.num_scaled, scaling.layers[1].left) == (0, "no factor gives such a rate")
    loss.backward()


class Normed(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.norm = layer, nn.BatchNorm1d(layer.out_features)
        nn.init.constant_(self.norm.weight, 0.05)

    def forward(self, x):
        return self.norm(self.layer(x))


def test_neurons_of_a_class_that_never_fires():
    """Norms keep even a strong input from making them fire, so that they are known by their zeros alone."""
    scaling = sb.scale_to_rate(Chain(wrap=Normed), images())
    assert [layer.weights for layer in scaling.layers] == [(f"layers.{i}.norm",) for i in range(3)]
    assert all(layer.before == 0 and layer.after == pytest.approx(0.1, rel=0.1) for layer in scaling.layers)


def test_neurons_that_return_their_membrane_first():
    class Explicit(Chain):
        def forward(self, x):
            out, membranes = 0, [None] * len(self.neurons)
            for _ in range(T):
                h = x.flatten(1)
                for i, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
                    membranes[i], h = neuron(layer(h), membranes[i])
                out = out + self.head(h)
            return out

    net = Explicit(depth=4, neuron=lambda: OneStep(membrane_first=True))
    scaling = sb.scale_to_rate(net, images() / 3)
    assert scaling.layers[-1].before == 0
    assert scaling.layers[-1].after == pytest.approx(0.1, rel=0.1)


def test_under_autocast_the_cached_weights_are_not_those_of_before():
    net = Chain()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scaling = sb.scale_to_rate(net, images() / 3)
        assert scaling.num_scaled == 3
        sb.reset_states(net)
        spikes = []
        handle = net.neurons[2].register_forward_hook(lambda m, i, o: spikes.append(o))
        net(images() / 3)
        handle.remove()
    assert torch.stack(spikes).float().mean().item() == pytest.approx(scaling.layers[2].after)


def test_a_network_may_change_its_input_in_place():
    class InPlace(Chain):
        def forward(self, x):
            return super().forward(x.mul_(0.3))

    x = images()
    assert sb.scale_to_rate(InPlace(), x).num_scaled == 3
    assert torch.equal(x, images())


class Recurrent(Stateful):
    """A neuron that holds recurrent weights."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.spikes = nn.Linear(30, 30), None

    def reset(self):
        self.v = self.spikes = None

    def forward(self, x):
        self.spikes = super().forward(x if self.spikes is None else x + self.recurrent(self.spikes))
        return self.spikes


def test_recurrent_weights_inside_a_neuron_are_left_alone():
    net = Chain(neuron=Recurrent)
    before = [neuron.recurrent.weight.clone() for neuron in net.neurons]
    scaling = sb.scale_to_rate(net, images() / 3)
    assert pairs(scaling) == {f"neurons.{i}": (f"layers.{i}",) for i in range(3)}
    assert scaling.num_scaled == 3
    assert all(torch.equal(n.recurrent.weight, w) for n, w in zip(net.neurons, before, strict=True))


def test_neurons_that_get_something_more_from_the_second_step_on_have_one_rate():
    class Feedback(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.f1, self.f2, self.back = nn.Linear(100, 30), nn.Linear(30, 30), nn.Linear(30, 30)
            self.l1, self.l2, self.head = Stateful(), Stateful(), nn.Linear(30, 10)

        def forward(self, x):
            spikes, out = None, 0
            for _ in range(T):
                current = self.f1(x.flatten(1) / 5)
                spikes = self.l2(self.f2(self.l1(current if spikes is None else current + self.back(spikes))))
                out = out + self.head(spikes)
            return out

    net = Feedback()
    scaling = sb.scale_to_rate(net, images())
    assert pairs(scaling) == {"l1": ("f1", "back"), "l2": ("f2",)}
    spikes = []
    handle = net.l1.register_forward_hook(lambda m, i, o: spikes.append(o))
    sb.reset_states(net)
    net(images())
    handle.remove()
    assert torch.stack(spikes).mean().item() == pytest.approx(scaling.layers[0].after)


def test_behind_neurons_that_cannot_be_brought_to_fire_nothing_is_scaled():
    net = nn.Sequential(nn.Flatten(), nn.Linear(100, 30), Stateful(), nn.Linear(30, 30), Stateful(), nn.Linear(30, 10))
    with torch.no_grad():
        net[1].weight.fill_(0.001)  # every neuron fires, or none does
        net[1].bias.zero_()
    scaling = sb.scale_to_rate(net, torch.ones(16, 1, 10, 10), firing_rate=0.01)
    assert scaling.layers[0].left == "no factor gives such a rate"
    assert scaling.layers[1].left.startswith("nothing reaches them")


def test_of_two_layers_the_one_that_may_be_scaled_is():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.head = nn.Linear(100, 30), nn.Linear(100, 30), nn.Linear(30, 10)
            self.fires = Stateful()

        def forward(self, x):
            return self.head(self.fires(self.a(x.flatten(1)) / 5 + self.b(x.flatten(1)) / 5))

    net = Both()
    freeze(net.b)
    frozen = net.b.weight.clone()
    scaling = sb.scale_to_rate(net, images())
    assert pairs(scaling) == {"fires": ("a",)}
    assert scaling.layers[0].after == pytest.approx(0.1, rel=0.1)
    assert torch.equal(net.b.weight, frozen)


class Gate(nn.Module):
    """What a block adds, times a number that starts at 0 in some of them."""

    def __init__(self, alpha):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha))

    def forward(self, x):
        return self.alpha * x


def test_gates_that_start_at_0_are_not_neurons():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.f1, self.f2, self.head = nn.Linear(100, 30), nn.Linear(30, 30), nn.Linear(30, 10)
            self.open, self.shut, self.l1, self.l2 = Gate(1.0), Gate(0.0), Stateful(), Stateful()

        def forward(self, x):
            x = self.l1(self.open(self.f1(x.flatten(1) / 3)))
            return self.head(self.l2(self.open(self.f2(x)) + self.shut(self.f2(x))))

    assert pairs(sb.scale_to_rate(Gated(), images())) == {"l1": ("f1",), "l2": ("f2",)}


def test_inputs_by_keyword():
    class ByKeyword(Chain):
        def forward(self, x):
            h = x.flatten(1)
            for layer, neuron in zip(self.layers, self.neurons, strict=True):
                h = neuron(x=layer(input=h))
            return self.head(h)

    scaling = sb.scale_to_rate(ByKeyword(), images() / 3)
    assert pairs(scaling) == {f"neurons.{i}": (f"layers.{i}",) for i in range(3)}
    assert scaling.layers[2].after == pytest.approx(0.1, rel=0.1)


def test_reentrant_checkpoints_are_refused():
    class Checkpointed(Chain):
        def forward(self, x):
            h = self.neurons[0](self.layers[0](x.flatten(1)))
            h = checkpoint(self.layers[1].forward, h, use_reentrant=True)
            return self.head(self.neurons[2](self.layers[2](self.neurons[1](h))))

    with pytest.raises(ValueError, match="use_reentrant=False"):
        sb.scale_to_rate(Checkpointed(), images())


def test_weights_of_inference_mode_are_refused():
    with torch.inference_mode():
        net = Chain()
    with pytest.raises(ValueError, match="made in inference mode"):
        sb.scale_to_rate(net, images())


def test_dropout_draws_the_same_numbers_for_each_factor():
    net, x = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(100, 40), Stateful(), nn.Linear(40, 10)), images()
    torch.manual_seed(3)
    scaling = sb.scale_to_rate(net, x / 3)
    torch.manual_seed(3)
    spikes = []
    handle = net[3].register_forward_hook(lambda m, i, o: spikes.append(o))
    sb.reset_states(net)
    net(x / 3)
    handle.remove()
    assert spikes[0].mean().item() == pytest.approx(scaling.layers[0].after)


def test_layers_of_several_steps_that_return_views():
    """SpikingJelly's; their outputs are changed in place, as its blocks do."""
    layer, neuron = (pytest.importorskip(f"spikingjelly.activation_based.{name}") for name in ("layer", "neuron"))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.c1, self.c2 = (layer.Conv2d(c, 8, 3, padding=1, step_mode="m") for c in (1, 8))
            self.n1, self.n2 = (neuron.LIFNode(step_mode="m") for _ in range(2))
            self.head = nn.Linear(8, 10)

        def forward(self, x):
            h = self.n1(self.c1(x.expand(T, *x.shape)))
            y = self.c2(h)
            y += h / 10
            return self.head(self.n2(y).mean((0, 3, 4)))

    scaling = sb.scale_to_rate(Net(), images())
    assert pairs(scaling) == {"n1": ("c1",), "n2": ("c2",)}
    assert scaling.layers[1].after == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("firing_rate", [np.float32(0.1), torch.tensor(0.1)])
def test_any_kind_of_number_is_a_rate(firing_rate):
    assert sb.scale_to_rate(Chain(), images(), firing_rate=firing_rate).firing_rate == pytest.approx(0.1)


@pytest.mark.parametrize("firing_rate", [0, 1, -0.1, 10, float("nan"), "0.1", None])
def test_a_rate_is_a_share(firing_rate):
    with pytest.raises(ValueError, match=r"firing_rate=.*: give a number between 0 and 1"):
        sb.scale_to_rate(deep(), images(), firing_rate=firing_rate)


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match=r"no neurons were seen in Sequential"):
        sb.scale_to_rate(nn.Sequential(nn.Flatten(), nn.Linear(100, 10)), images())
    functional = nn.Sequential(nn.Embedding(3, 5), nn.Flatten(), Stateful(), nn.Linear(500, 10))
    with pytest.raises(ValueError, match=r"no layer of a known kind .* feeds the neurons of Sequential: 2"):
        sb.scale_to_rate(functional, torch.randint(0, 3, (16, 100)))
    with pytest.raises(ValueError, match=r"the network is a Tensor: call scale_to_rate\(net, x\)"):
        sb.scale_to_rate(images(), deep())
    with pytest.raises(ValueError, match="the batch is all 0"):
        sb.scale_to_rate(deep(), images() * 0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        sb.scale_to_rate(deep(), images() / 0)
    with pytest.raises(ValueError, match=r"network before torch\.compile"):
        sb.scale_to_rate(torch.compile(deep()), images())
    with pytest.raises(ValueError, match="the batch is a list of 1: give the images alone"):
        sb.scale_to_rate(deep(), [images()])
    with pytest.raises(ValueError, match="3 channels, and the first convolution takes 1"):
        sb.scale_to_rate(deep(), images().expand(-1, 3, -1, -1))
