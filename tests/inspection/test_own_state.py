"""Neurons that somebody wrote, which remember their membrane; networks that change their input."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection import libraries

N, K = 4, 3


class Neuron(nn.Module):
    """A LIF neuron as research code has it, one call a step."""

    def __init__(self) -> None:
        super().__init__()
        self.mem = None

    def forward(self, x):
        self.mem = x if self.mem is None else 0.5 * self.mem + x
        spikes = Spike.apply(self.mem)
        self.mem = self.mem * (1 - spikes)
        return spikes


class WithReset(Neuron):
    def reset(self):
        self.mem = None


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 1).to(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (1 - (x - 1).abs()).clamp(0)


class Net(nn.Module):
    def __init__(self, neuron, num_steps=2):
        super().__init__()
        self.num_steps = num_steps
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 8, 3, padding=1), nn.BatchNorm2d(8), neuron()) for c in (1, 8, 8)
        )
        self.fc = nn.Linear(8, K)

    def forward(self, x):
        outputs = []
        for _ in range(self.num_steps):
            h = x
            for block in self.blocks:
                h = block(h)
            outputs.append(self.fc(h.mean((2, 3))))
        return torch.stack(outputs)


def batch():
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.rand(N, 1, 6, 6, generator=generator), torch.arange(N) % K


def made(neuron):
    torch.manual_seed(0)
    return Net(neuron)


def check_it_trains_as_by_hand(net, tmp_path):
    assert sb.reset_states(net) == 3
    x, y = batch()
    wrapped = sb.attach(net, at=["blocks.0", "blocks.1"], sample=x, reduce="mean")
    execution = sb.training.choose_execution(precision="fp32", compile="off")  # as by hand, on every processor
    sb.training.fit(wrapped, [(x, y)] * 3, epochs=1, folder=tmp_path, lr=0.05, execution=execution, loggers=())
    for (name, value), other in zip(net.named_parameters(), by_hand().parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6, msg=name)


def by_hand():
    """The same training in a loop of its own, with membranes forgotten by hand."""
    net = made(Neuron)
    x, y = batch()
    net_with_heads = sb.attach(net, at=["blocks.0", "blocks.1"], sample=x, layout="steps", reduce="mean")
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in net_with_heads.parameters() if p.ndim > 1], "weight_decay": 1e-4},
            {"params": [p for p in net_with_heads.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.05,
        momentum=0.9,
    )
    schedule = sb.training.WarmupCosine(peak=0.05, total_steps=3)
    for step in range(3):
        for module in net.modules():
            if isinstance(module, Neuron):
                module.mem = None
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        optimizer.zero_grad()
        outputs = net_with_heads(x)
        total = outputs.logits + 0.25 * (1 - step / 3) * sum(outputs.branches.values())
        nn.functional.cross_entropy(total, y).backward()
        optimizer.step()
    return net


@pytest.fixture
def registered():
    sb.register_reset(Neuron, lambda neuron: setattr(neuron, "mem", None))
    yield
    libraries._registered.clear()


def test_a_neuron_with_a_reset_trains_as_by_hand(tmp_path):
    net = made(WithReset)
    check_it_trains_as_by_hand(net, tmp_path)


def test_so_does_one_of_a_class_that_is_registered(tmp_path, registered):
    net = made(Neuron)
    check_it_trains_as_by_hand(net, tmp_path)


def test_without_either_the_cause_is_said(tmp_path):
    net, (x, y) = made(Neuron), batch()
    with pytest.raises(ValueError, match=r"layout='auto'.*remembers something.*register_reset"):
        sb.attach(net, at=["blocks.0"], sample=x, reduce="mean")
    wrapped = sb.attach(net, at=["blocks.0"], sample=x, layout="steps", reduce="mean")
    with pytest.raises(ValueError, match=r"leads back into the previous batch.*register_reset"):
        sb.training.fit(wrapped, [(x, y)] * 3, epochs=1, folder=tmp_path, loggers=())


def test_a_reset_that_needs_arguments_is_another_thing():
    class Layer(nn.Linear):
        def reset(self, gain):
            raise AssertionError

    assert sb.reset_states(Layer(2, 2)) == 0


def test_a_reset_of_weights_is_refused():
    class Layer(nn.Linear):
        def reset(self):
            self.reset_parameters()

    with pytest.raises(ValueError, match="changed parameters"):
        sb.reset_states(nn.Sequential(Layer(2, 2)))


def test_what_cannot_be_registered_is_refused():
    with pytest.raises(ValueError, match=r"not a class derived from nn\.Module"):
        sb.register_reset(nn.ReLU(), print)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="cannot be called"):
        sb.register_reset(Neuron, "clear")  # pyright: ignore[reportArgumentType]


def test_a_network_is_diagnosed_after_a_step_and_between_forward_and_backward(registered):
    net, (x, y) = made(Neuron), batch()
    net(x).mean(0).logsumexp(1).sum().backward()
    expected = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    sb.reset_states(net)
    loss = net(x).mean(0).logsumexp(1).sum()
    wrapped = sb.attach(net, at=["blocks.0"], sample=x, layout="steps", reduce="mean")
    sb.diagnose(wrapped, x, y)  # with membranes that are part of a graph
    sb.strip(wrapped)
    loss.backward()
    for value, other in zip((p.grad for p in net.parameters()), expected, strict=True):
        torch.testing.assert_close(value, other)


class InPlace(nn.Module):
    """Adds an axis to its input, and a number, as research code does to save a line."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        x.unsqueeze_(1)
        x.sub_(0.5)
        return self.inner(x)


@pytest.mark.parametrize("at", ["blocks", ["inner.1", "inner.3"], "auto"])
def test_the_sample_is_left_as_it_is(at):
    torch.manual_seed(0)
    parts = []
    for c in (1, 4, 4):
        parts += [nn.Conv2d(c, 4, 3, padding=1), sb.LIF(1)]
    x, y = batch()
    plain = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, K))
    changing = InPlace(plain)
    given = x.squeeze(1).clone()
    net = sb.attach(changing, at=at, sample=given)
    report = sb.diagnose(net, given, y)
    assert torch.equal(given, x.squeeze(1))
    places = [place.removeprefix("inner.") for place in net.places]
    sb.strip(net)
    torch.manual_seed(0)
    reference = sb.attach(plain, at=places, sample=x - 0.5)
    for head, other in zip(reference.heads, net.heads, strict=True):
        head.load_state_dict(other.state_dict())
    expected = sb.diagnose(reference, x - 0.5, y)
    for layer, other in zip(report.layers, expected.layers, strict=True):
        assert layer.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-5)
