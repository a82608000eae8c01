"""Frame by frame is the sequence: spikes bit for bit, logits up to how a processor adds up a matrix product."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.errors import UserError
from tests.export.networks import fires, foreign, images, network

SEVERAL = [
    ("resnet20", {}),
    ("resnet20", {"residual": "sew"}),
    ("resnet20", {"residual": "membrane"}),
    ("resnet20", {"norm": "tebn"}),
    ("vgg11", {"neuron": sb.PLIF}),
    ("foreign", {}),
]


def read_out_of(net, run):
    """What the last linear layer is given in a run, and what the run returns."""
    *_, last = (module for module in net.modules() if isinstance(module, nn.Linear))
    given = []
    hook = last.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    y = run()
    hook.remove()
    return torch.cat(given), y


def assert_same(streamed, whole):
    """The spikes bit for bit; a product of N rows may round otherwise than one of T*N does, by the processor."""
    assert torch.equal(streamed[0], whole[0])
    torch.testing.assert_close(streamed[1], whole[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), SEVERAL, ids=range(len(SEVERAL)))
@torch.no_grad()
def test_it_is_the_sequence(name, settings):
    model = network(name, **settings)
    if settings.get("norm") == "tebn":
        for module in model.modules():
            if hasattr(module, "by_step"):
                module.by_step.copy_(torch.tensor([1.0, 0.7, 1.3]))
    stream = sb.stream(model)
    sequence, still = images(num_steps=3), images()

    def streamed(frames):
        state = None
        for frame in frames:
            y, state = stream(frame, state)
        assert int(state[":steps"]) == 3
        return y

    assert_same(read_out_of(stream, lambda: streamed(sequence)), read_out_of(model, lambda: model(sequence)))
    assert_same(read_out_of(stream, lambda: streamed([still] * 3)), read_out_of(model, lambda: model(still)))


@torch.no_grad()
def test_logits_so_far_are_those_of_fewer_steps():
    model, x, state = network("resnet20"), images(), None
    stream = sb.stream(model)
    for count in range(1, 4):
        y, state = stream(x, state)
        model.num_steps = count
        torch.testing.assert_close(y, model(x), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_relu_used_twice_has_two_states():
    model = network("foreign")
    _, state = sb.stream(model)(images())
    assert {"block1.relu", "block1.relu:2", "block2.relu", "block2.relu:2", "act"} <= set(state)
    assert not torch.equal(state["block1.relu"], state["block1.relu:2"])


@torch.no_grad()
def test_states_are_values_and_weights_are_shared():
    """One may go back to a state, and two sensors have a state each."""
    model, x = network("resnet20"), images()
    stream = sb.stream(model)
    _, first = stream(x)
    kept = {key: value.clone() for key, value in first.items()}
    again = [stream(x, first)[0] for _ in range(2)]
    assert torch.equal(*again)
    assert all(torch.equal(first[key], kept[key]) for key in kept)
    model.network.fc.bias += 1
    torch.testing.assert_close(stream(x, first)[0], again[0] + 0.5)  # the first step was without


@torch.no_grad()
def test_a_state_to_begin_with_is_none():
    for initial in (0.0, 0.3):
        model, x = fires(foreign(initial=initial)), images()
        stream = sb.stream(model)
        begin = stream.initial_state(x)
        for key, value in stream(x, begin)[1].items():
            assert torch.equal(value, stream(x)[1][key])


def test_it_stays_in_eval():
    assert not sb.stream(network("resnet20")).train().network.training


@torch.no_grad()
def test_by_step():
    model, x, state, outputs = network("resnet20"), images(), None, []
    model.readout = "steps"
    stream = sb.stream(model)
    for _ in range(3):
        y, state = stream(x, state)
        outputs.append(y)
    assert torch.equal(torch.stack(outputs), model(x))


@torch.no_grad()
def test_factors_of_steps_end_with_them():
    """Where others go on."""
    for norm in ("tebn", "tdbn"):
        stream, x, state = sb.stream(network("resnet20", norm=norm)), images(2), None
        for _ in range(3):
            _, state = stream(x, state)
        if norm == "tdbn":
            assert int(stream(x, state)[1][":steps"]) == 4
        else:
            with pytest.raises(
                ValueError, match=r"step 4: norm='tebn' has learned a factor for each of 3 steps"
            ) as error:
                stream(x, state)
            assert isinstance(error.value, UserError)
            stream(x)  # anew


def test_what_is_wrong_is_said():
    model = network("resnet20")
    stream = sb.stream(model)
    _, state = stream(images(4))
    with pytest.raises(ValueError, match="a batch of 4 for frames of a batch of 2"):
        stream(images(2), state)
    with pytest.raises(ValueError, match="not one of this network"):
        stream(images(4), {})
    with pytest.raises(ValueError, match="goes frame by frame"):
        stream(images(num_steps=3))
    with pytest.raises(ValueError, match="takes a SpikingNetwork"):
        sb.stream(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="no neuron of shortback"):
        sb.stream(sb.SpikingNetwork(nn.Flatten(), num_steps=2))


class Indexed(nn.Module):
    """Calls its neurons from a list beside its modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 5)
        self.activations = [self.relu]

    def forward(self, x):
        return self.fc(self.activations[0](self.conv(x)).mean((2, 3)))


@torch.no_grad()
def test_neurons_in_a_list():
    torch.manual_seed(0)
    model = sb.spikify(Indexed(), num_steps=3).eval()
    for count in (2, 3):
        x, state, stream = 3 * torch.randn(3, count, 3, 8, 8), None, sb.stream(model)
        for frame in x:
            y, state = stream(frame, state)
        torch.testing.assert_close(y, model(x), rtol=0, atol=1e-6)
        assert "relu" in state


class OwnSteps(nn.Module):
    def __init__(self, num_steps):
        super().__init__()
        self.num_steps = num_steps

    def forward(self, x):
        return x.unflatten(0, (self.num_steps, -1)).cumsum(0).flatten(0, 1)


class OwnForward(sb.LIF):
    def forward(self, x):
        return super().forward(2 * x)


@pytest.mark.parametrize(
    ("put_in", "words"),
    [
        (lambda: OwnSteps(2), "OwnSteps, and what it does in one step is unknown"),
        (lambda: OwnForward(2), "OwnForward with a forward of its own, but no step"),
        (lambda: nn.BatchNorm2d(4, track_running_stats=False), "track_running_stats=True"),
    ],
)
def test_what_a_single_step_would_compute_differently_is_refused(put_in, words):
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), put_in(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    with pytest.raises(UserError, match=words):
        sb.stream(sb.spikify(nn.Sequential(*layers), num_steps=2))
