"""Settings of neurons against the equations in float64, against other libraries, and compiled against the reference."""

import functools
import itertools

import pytest
import torch

import shortback as sb
from shortback.ops import Dynamics, multi_step
from shortback.surrogates import Arctan, Sigmoid

T = 5
KINDS = {
    "reset_to": Dynamics(reset_to=-0.3, threshold=0.7),
    "reset_to detached": Dynamics(reset_to=0.2, detach_reset=True),
    "none": Dynamics(reset="none", surrogate=Arctan()),
    "initial": Dynamics(initial=0.4, reset="soft"),
    "decay_input": Dynamics(decay_input=True, threshold=0.3),
    "decay_input soft": Dynamics(decay_input=True, reset="soft", threshold=0.3, surrogate=Sigmoid()),
    "all": Dynamics(reset_to=0.1, initial=-0.2, fires_above=True, decay_input=True, threshold=0.4),
}


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, dynamics):
        ctx.save_for_backward(u)
        ctx.dynamics = dynamics
        return (u > dynamics.threshold if dynamics.fires_above else u >= dynamics.threshold).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * ctx.dynamics.surrogate.gradient(u - ctx.dynamics.threshold), None


def by_hand(x, dynamics, decay):
    v, out = torch.full_like(x[0], dynamics.initial), []
    for current in x:
        u = decay * v + (current * (1 - decay) if dynamics.decay_input else current)
        s = Step.apply(u, dynamics)
        out.append(s)
        reset = s.detach() if dynamics.detach_reset else s
        v = {
            "hard": u * (1 - reset) + dynamics.reset_to * reset,
            "soft": u - dynamics.threshold * reset,
            "none": u,
        }[dynamics.reset]
    return torch.stack(out)


@pytest.mark.parametrize("backend", ["reference", "compiled"])
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_and_gradients_by_hand(kind, backend):
    dynamics = KINDS[kind]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(T, 7, 13, generator=generator, dtype=torch.float64).requires_grad_()
    decay = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(T, 7, 13, generator=generator, dtype=torch.float64)
    ours, _ = multi_step(x, dynamics=dynamics, decay=decay, num_steps=T, backend=backend)
    expected = by_hand(x, dynamics, decay)
    assert torch.equal(ours, expected)
    assert 0 < ours.mean() < 1
    gradients = [torch.autograd.grad((s * weights).sum(), (x, decay)) for s in (ours, expected)]
    torch.testing.assert_close(*gradients)


def test_at_the_threshold_alone_it_makes_a_difference():
    x = torch.tensor([[1.0, 1.0 + 1e-6, 1.0 - 1e-6]])
    for backend, above in itertools.product(("reference", "compiled"), (False, True)):
        spikes, _ = multi_step(x, dynamics=Dynamics(fires_above=above), decay=0.5, num_steps=1, backend=backend)
        assert spikes[0].tolist() == [0.0 if above else 1.0, 1.0, 0.0]


def test_spikingjelly_with_a_decayed_input_and_a_reset_potential():
    """Its membrane leaks towards `v_reset` too: ours with the threshold counted from there."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    x = torch.randn(T, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for decay_input, v_reset in itertools.product((False, True), (0.0, 0.25)):
        theirs = neuron.LIFNode(
            tau=2.5, decay_input=decay_input, v_threshold=0.6, v_reset=v_reset, step_mode="m",
            surrogate_function=surrogate.ATan(alpha=2.0),
        )  # fmt: skip
        ours = sb.LIF(
            T, decay=1 - 1 / 2.5, decay_input=decay_input, threshold=0.6 - v_reset,
            surrogate=Arctan(slope=2.0), backend="reference",
        )  # fmt: skip
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = theirs(inputs[0]), ours(inputs[1].flatten(0, 1)).unflatten(0, (T, 4))
        assert torch.equal(*outputs)
        weights = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        gradients = [torch.autograd.grad((s * weights).sum(), i)[0] for s, i in zip(outputs, inputs, strict=True)]
        torch.testing.assert_close(*gradients)


def test_snntorch_without_a_reset_and_firing_above():
    snntorch = pytest.importorskip("snntorch")
    x = torch.randn(T, 4, 9, generator=torch.Generator().manual_seed(3))
    theirs = snntorch.Leaky(beta=0.8, threshold=0.5, reset_mechanism="none")
    membrane, out = theirs.reset_mem(), []
    for current in x:
        spikes, membrane = theirs(current, membrane)
        out.append(spikes)
    ours = sb.LIF(T, decay=0.8, threshold=0.5, reset="none", fires_above=True, backend="reference")
    assert torch.equal(ours(x.flatten(0, 1)).unflatten(0, (T, 4)), torch.stack(out))


def test_what_kernels_do_not_carry_is_refused_by_name():
    parameter = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="the weight of a norm before the neuron"):
        sb.LIF(2, threshold=parameter)
    with pytest.raises(ValueError, match="one decay per channel is not supported"):
        sb.PLIF(2, decay=parameter)
    with pytest.raises(TypeError, match="refractory"):
        sb.LIF(2, refractory=2)


def test_a_layer_in_one_operation_has_them_too():
    """In float64, where no sum in another order flips a spike."""
    results = []
    for backend in ("compiled", "reference"):
        torch.manual_seed(1)
        settings = {"reset_to": 0.1, "initial": 0.2, "decay_input": True, "fires_above": True, "threshold": 0.3}
        model = sb.create_model(
            "resnet20", width=0.25, num_steps=2, neuron=functools.partial(sb.PLIF, backend=backend, **settings)
        )
        model.double().to(memory_format=torch.channels_last)
        x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
        logits = model(x)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def test_step_by_step_begins_from_the_initial_membrane():
    neuron = sb.LIF(2, initial=0.8, decay=0.5, backend="reference")
    x = torch.tensor([[0.7], [0.1]])
    spikes, state = neuron.step(x[:1])
    again, _ = neuron.step(x[1:], state)
    assert torch.equal(torch.cat([spikes, again]), neuron(x))
