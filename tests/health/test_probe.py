import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.health import measure
from shortback.health.measurement import MAIN
from shortback.losses import ShortcutLoss

LOSS = ShortcutLoss()


def snapshot(net):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
    state = {key: value.clone() for key, value in net.state_dict().items()}
    return hooks, state, [m.training for m in net.modules()], torch.get_rng_state()


def assert_same(a, b):
    assert a[0] == b[0]
    assert list(a[1]) == list(b[1])
    assert all(torch.equal(value, b[1][key]) for key, value in a[1].items())
    assert a[2] == b[2]
    assert torch.equal(a[3], b[3])


def test_a_linear_network_by_hand():
    """L = CE(W2 W1 x, y): dL/dW2 = d (W1 x)^T and dL/dW1 = W2^T d x^T, with d = softmax - onehot."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    first, second = torch.tensor([[1.0, 2.0], [0.5, -1.0]]).double(), torch.tensor([[0.3, 1.0], [-1.0, 0.2]]).double()
    with torch.no_grad():
        net[0].weight.copy_(first)
        net[1].weight.copy_(second)
    x, y = torch.tensor([[1.0, -1.0], [2.0, 0.5]]).double(), torch.tensor([0, 1])
    hidden = x @ first.T
    delta = (torch.softmax(hidden @ second.T, 1) - F.one_hot(y, 2)) / 2
    seen = measure(net, x, y, loss=LOSS, coefficient=0.0)
    expected = {"0": (second.T @ delta.T @ x, first), "1": (delta.T @ hidden, second)}
    for layer in seen.layers:
        gradient, weight = expected[layer.name]
        assert layer.gradient_norm == pytest.approx(gradient.norm().item())
        assert layer.weight_norm == pytest.approx(weight.norm().item())
        assert layer.terms == {MAIN: pytest.approx(layer.gradient_norm)}
        assert layer.num_zero == 0
    assert [layer.name for layer in seen.layers] == ["0", "1"]
    assert seen.neurons == []


class TwoLIF(nn.Module):
    """One weight into each of two neurons in a row, and a readout of (s, 0)."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        surrogate = sb.surrogates.Triangular(half_width=1.0)
        self.first = sb.LIF(2, decay=0.5, surrogate=surrogate, backend="reference")
        self.second = sb.LIF(2, decay=0.5, surrogate=surrogate, backend="reference")
        with torch.no_grad():
            self.a.weight.fill_(0.8)
            self.b.weight.fill_(1.5)

    def forward(self, x):
        s = self.second(self.b(self.first(self.a(x))))
        return F.pad(s.unflatten(0, (2, -1)).mean(0), (0, 1))


def test_two_lif_layers_by_hand():
    """Two steps of input 1 for the one sample.

    First neuron: u = .8, 1.2, spikes 0, 1, surrogate 1 - |u - 1| = .8, .8. Second: current 0, 1.5; u = 0, 1.5, spikes
    0, 1, surrogate 0, .5. Output mean .5, so dL/dO = softmax(.5, 0)_0 - 1 = d for class 0, and d/2 reaches each spike.
    Second neuron, step 2: g_u = .5 d/2, and g_v = 0; it decays to step 1 as .5 g_u times dv/du there, whose surrogate
    is 0 and which did not fire: 1. So dL/db = g_u[2] * s1[2] + g_u[1] * s1[1] = .25 d.
    First neuron: spike gradient 1.5 g_u of the second: step 2 .375 d, step 1 1.5 * .5 * .25 d = .1875 d.
    g_u[2] = .8 * .375 d = .3 d; g_v[1] = .5 * .3 d; dv/du[1] = 1 - s - u g = 1 - 0 - .64 = .36;
    g_u[1] = .8 * .1875 d + .15 d * .36 = .204 d; dL/da = (.3 + .204) d = .504 d.
    """
    seen = measure(TwoLIF(), torch.ones(2, 1), torch.tensor([0]), loss=LOSS, coefficient=0.0)
    d = 1 - torch.softmax(torch.tensor([0.5, 0.0]), 0)[0].item()
    a, b = seen.layers
    assert b.gradient_norm == pytest.approx(0.25 * d, rel=1e-5)
    assert a.gradient_norm == pytest.approx(0.504 * d, rel=1e-5)
    assert a.relative == pytest.approx(0.504 * d / 0.8, rel=1e-5)
    first, second = seen.neurons
    assert (first.firing_rate, second.firing_rate) == (0.5, 0.5)
    assert (first.in_window, second.in_window) == (1.0, 0.5)
    assert second.gradient_by_step == pytest.approx([d / 2, d / 2], rel=1e-5)
    assert first.gradient_by_step == pytest.approx([0.1875 * d, 0.375 * d], rel=1e-5)
    assert (first.dead, first.saturated, first.not_binary) == (0, 0, 0)


def through_each(outputs, y, *, combine, coefficient):
    """A scalar for each output whose gradient is what the loss sends through that output alone, by the formulas.

    Of added logits, every output gets the gradient of the one cross entropy, softmax of the sum minus the target.
    """
    weights = {MAIN: 1.0 if combine != "convex" else 1 - coefficient, **dict.fromkeys(outputs.branches, coefficient)}
    every = {MAIN: outputs.logits, **outputs.branches}
    if combine != "logits":
        return {name: weights[name] * F.cross_entropy(output, y) for name, output in every.items()}
    summed = sum(weights[name] * output.detach().double() for name, output in every.items())
    delta = (torch.softmax(summed, 1) - F.one_hot(y, summed.shape[1])) / len(y)
    return {name: (weights[name] * delta * output).sum() for name, output in every.items()}


@pytest.mark.parametrize("combine", ["logits", "additive", "convex"])
def test_terms_add_up_to_the_total(make_network, batch, combine):
    """What comes through each output, found by differentiating that output alone, sums to the total's to 1e-5."""
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    loss = ShortcutLoss(combine=combine)
    seen = measure(net, x, y, loss=loss, coefficient=0.3)
    weights = [p for name, p in net.model.network.named_parameters() if p.ndim >= 2]
    outputs = net.train()(x)
    parts = through_each(outputs, y, combine=combine, coefficient=0.3)
    grads = {
        name: torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True) for name, part in parts.items()
    }
    vanilla = torch.autograd.grad(F.cross_entropy(outputs.logits, y), weights, retain_graph=True)
    total = torch.autograd.grad(loss(outputs, y, coefficient=0.3).total, weights)
    assert len(seen.layers) == len(weights)
    by_norm = sorted(seen.layers, key=lambda layer: layer.weight_norm)
    for i in sorted(range(len(weights)), key=lambda i: weights[i].norm().item()):
        layer = by_norm.pop(0)
        mine = {name: g[i] if g[i] is not None else torch.zeros_like(weights[i]) for name, g in grads.items()}
        summed = torch.stack(list(mine.values())).sum(0)
        assert (summed - total[i]).norm() <= 1e-5 * total[i].norm()
        assert layer.gradient_norm == pytest.approx(total[i].norm().item(), rel=1e-5)
        assert layer.terms == {n: pytest.approx(g.norm().item(), rel=1e-5, abs=1e-12) for n, g in mine.items()}
        assert layer.vanilla_norm == pytest.approx(vanilla[i].norm().item(), rel=1e-5)
        branches = summed - mine[MAIN]
        assert layer.branch_norm == pytest.approx(branches.norm().item(), rel=1e-4, abs=1e-9)
        if layer.cosine is not None:
            cosine = F.cosine_similarity(mine[MAIN].flatten(), branches.flatten(), dim=0).item()
            assert layer.cosine == pytest.approx(cosine, abs=1e-4)
    assert seen.losses.keys() == {MAIN, "layer1", "layer2"}


def test_the_gradient_of_the_first_layer_is_counted(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    seen = measure(net, x, y, loss=LOSS, coefficient=1.0).first_layer
    first = net.model.network.stem.conv1.weight
    outputs = net.train()(x)
    losses = {"vanilla": F.cross_entropy(outputs.logits, y), "whole loss": LOSS(outputs, y, coefficient=1.0).total}
    assert list(seen.counts) == list(losses)
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, first, retain_graph=True)
        bins = [
            sum(low <= value < high for value in gradient.flatten().tolist())
            for low, high in zip(seen.edges, seen.edges[1:], strict=False)
        ]
        assert sum(seen.counts[name]) == first.numel()
        # A value at an edge may fall to either side of it.
        assert sum(abs(a - b) for a, b in zip(bins, seen.counts[name], strict=True)) <= 4
    assert list(measure(net.model, x, y, loss=LOSS, coefficient=1.0).first_layer.counts) == ["whole loss"]
    assert measure(net, x, y, loss=LOSS, coefficient=1.0, by_branch=False).first_layer is None


def test_a_gradient_that_is_no_number_has_no_histogram(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    nn.init.constant_(net.heads[0].weight, torch.nan)  # so that vanilla training alone would be finite
    seen = measure(net, x, y, loss=LOSS, coefficient=1.0)
    assert seen.layers[0].num_nan
    assert seen.layers[0].vanilla_norm > 0
    assert seen.first_layer is None


def test_all_branches_together_are_their_sum(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    one, other = (measure(net, x, y, loss=LOSS, coefficient=1.0, by_branch=each) for each in (True, False))
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.branch_norm == pytest.approx(b.branch_norm, rel=1e-4, abs=1e-9)
        assert list(b.terms) == [MAIN]


@pytest.mark.parametrize("attached", [False, True])
def test_it_changes_nothing(make_network, batch, attached):
    x, y = batch
    net = make_network(backend="auto")
    net = sb.attach(net, at="blocks", sample=x) if attached else net
    net.eval()
    next(net.parameters()).grad = torch.ones_like(next(net.parameters()))
    before, grads = snapshot(net), [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    measure(net, x, y, loss=LOSS, coefficient=1.0, backend="reference")
    assert_same(before, snapshot(net))
    assert {m.backend for m in net.modules() if isinstance(m, sb.LIF)} == {"auto"}
    for p, grad in zip(net.parameters(), grads, strict=True):
        assert (p.grad is None) == (grad is None)
        assert grad is None or torch.equal(p.grad, grad)


def test_it_works_where_gradients_are_off(make_network, batch):
    x, y = batch
    net = make_network()
    expected = measure(net, x, y, loss=LOSS, coefficient=0.0)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert measure(net, x.clone(), y.clone(), loss=LOSS, coefficient=0.0) == expected


class Shared(nn.Module):
    """One layer and one neuron, both used twice, and one of each not at all."""

    def __init__(self):
        super().__init__()
        self.layer, self.neuron = nn.Linear(4, 4), sb.LIF(2, threshold=0.3, backend="reference")
        self.out, self.spare = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, x):
        for _ in range(2):
            x = self.neuron(self.layer(x))
        return self.out(x.unflatten(0, (2, -1)).mean(0))


def test_a_layer_used_twice_has_all_of_its_gradient():
    torch.manual_seed(0)
    net, x, y = Shared(), torch.randn(2 * 6, 4), torch.arange(6) % 3
    seen = measure(net, x, y, loss=LOSS, coefficient=0.0)
    assert [layer.name for layer in seen.layers] == ["layer", "out"]
    assert seen.unused == ["spare"]
    F.cross_entropy(net(x), y).backward()
    assert seen.layers[0].gradient_norm == pytest.approx(net.layer.weight.grad.norm().item(), rel=1e-5)
    assert [neuron.name.partition(" ")[2] for neuron in seen.neurons] == ["", "(call 2)"]
    assert [len(neuron.gradient_by_step) for neuron in seen.neurons] == [2, 2]


class ByName(nn.Linear):
    def __init__(self):
        super().__init__(12, 10)

    def forward(self, x):
        return {"scores": super().forward(x).mean((1, 2))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net, x, y: (net.requires_grad_(False), x, y), "no trainable weights"),
        (lambda net, x, y: (net, x[:1], y[:1]), "one sample under batch norm"),
        (lambda net, x, y: (net, x, y + 7), "must be from 0 to 9"),
        (lambda net, x, y: (net, x, y - 1), "labels from -1"),
        (lambda net, x, y: (net, x, y[:3]), "3 labels for 8 samples"),
        (lambda net, x, y: (net, x[:0], y[:0]), "empty"),
        (lambda net, x, y: (net, x[:1], y[0]), r"single number: .* target.reshape\(1\)"),
        (lambda net, x, y: (torch.compile(net), x, y), "before torch.compile"),
        (lambda net, x, y: (ByName(), x, y), "returns dict"),
    ],
)
def test_bad_input_is_named(make_network, batch, change, message):
    net, x, y = change(make_network(), *batch)
    with pytest.raises(ValueError, match=message):
        measure(net, x, y, loss=LOSS, coefficient=0.0)


def test_a_batch_with_nan_is_named_and_not_the_layers_that_see_it(make_network, batch):
    x, y = batch
    x[0, 0, 3, 4] = float("nan")
    with pytest.raises(ValueError, match="the batch has 1 NaN"):
        measure(make_network(), x, y, loss=LOSS, coefficient=0.0)
    cleans = nn.Sequential(Cleaning(), make_network())
    assert measure(cleans, x, y, loss=LOSS, coefficient=0.0).layers[0].gradient_norm > 0


class Cleaning(nn.Module):
    def forward(self, x):
        return x.nan_to_num()


def test_numbers_that_are_not_finite_are_counted(make_network, batch):
    x, y = batch
    net = make_network()
    with torch.no_grad():
        net.network.fc.weight[0, 0] = float("nan")
    layers = {layer.name: layer for layer in measure(net, x, y, loss=LOSS, coefficient=0.0).layers}
    assert layers["fc"].num_nan == layers["fc"].num_weights


def test_what_is_seen_does_not_depend_on_how_layers_run(make_network, batch):
    """As one operation and module by module, in float64: the same report."""
    x, y = batch
    x = x.double().contiguous(memory_format=torch.channels_last)
    seen = []
    for backend in ("compiled", "reference"):
        net = sb.attach(make_network(backend=backend).double(), at="stages", sample=x)
        net.to(memory_format=torch.channels_last)
        seen.append(measure(net, x, y, loss=LOSS, coefficient=0.5))
    for a, b in zip(seen[0].layers, seen[1].layers, strict=True):
        assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-9)
        assert a.terms == pytest.approx(b.terms, rel=1e-9)
    for a, b in zip(seen[0].neurons, seen[1].neurons, strict=True):
        assert (a.name, a.firing_rate, a.dead, a.in_window) == (b.name, b.firing_rate, b.dead, b.in_window)
        assert a.gradient_by_step == pytest.approx(b.gradient_by_step, rel=1e-9)


def test_what_is_silent_in_eval_alone_is_named(batch):
    """Statistics that lag behind: neurons fire by those of the batch, and not by the running ones."""
    torch.manual_seed(0)
    norm, x = nn.BatchNorm1d(6, momentum=1e-4), torch.randn(8, 4) + 3
    net = nn.Sequential(nn.Linear(4, 6), norm, sb.LIF(1, threshold=0.4, backend="reference"), nn.Linear(6, 3))
    with torch.no_grad():
        net[0].weight.mul_(0.01)
        net[0].bias.zero_()
    settings = {"loss": LOSS, "coefficient": 0.0}
    y = torch.arange(8) % 3
    assert measure(net, x, y, **settings).silent_in_eval is None  # of fresh statistics there is nothing to say
    net.train()(x)
    seen = measure(net, x, y, **settings)
    assert seen.silent_in_eval == "2"
    report = sb.health.GradientReport.of(seen)
    assert "2 fires in training and never there" in str(report)
    norm.momentum = 1.0
    net(x)
    assert measure(net, x, y, **settings).silent_in_eval is None


class NumpyNoise(nn.Module):
    def forward(self, x):
        return x + torch.from_numpy(np.random.standard_normal(x.shape)).to(x.dtype) * random.random()


@pytest.mark.parametrize("noise", [nn.Dropout(0.5), NumpyNoise()], ids=["torch", "NumPy and Python"])
def test_both_forwards_draw_the_same_numbers(noise):
    """Dropout is nothing that is remembered, and what was seen of the neurons is what the gradient was of."""

    class Noisy(nn.Sequential):
        pass

    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    neuron = sb.LIF(1, threshold=0.2, backend="reference")
    net = Noisy(nn.Linear(6, 20), noise, neuron, nn.Linear(20, 5))
    state = torch.get_rng_state()
    seen = measure(
        net,
        3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(1)),
        torch.arange(4),
        loss=LOSS,
        coefficient=0.0,
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not seen.remembers
    x = 3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    assert seen.loss == pytest.approx(F.cross_entropy(net(x), torch.arange(4)).item())
