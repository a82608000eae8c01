import pytest
import torch
from torch import nn

import shortback as sb
from shortback.health.activity import Observer
from shortback.inspection.calls import Calls


class Threshold(nn.Module):
    """A neuron of some other library: zeros and ones from anything, one step a call."""

    def forward(self, x):
        return (x > 0).to(x.dtype)


def seen(net, x, *, num_samples):
    firing = Calls.of(net, x).firing
    observer = Observer(num_samples, {name: module for name, module in net.named_modules() if module in firing})
    with observer.observe():
        net(x)
    return observer.activities()


def test_rates_dead_and_saturated_neurons_by_hand():
    neuron = sb.LIF(2, decay=0.0, threshold=1.0, backend="reference")
    x = torch.tensor([[[0.0, 2.0, 2.0, 0.6]], [[0.0, 2.0, 2.0, 0.9]], [[0.0, 2.0, 0.0, 0.0]], [[0.0, 2.0, 0.0, 3.0]]])
    (activity,) = seen(nn.Sequential(neuron), x, num_samples=2)
    assert activity.name == "0"
    assert activity.firing_rate == 7 / 16
    assert activity.dead == 1 / 4
    assert activity.saturated == 1 / 4
    # Within 1 of the threshold, edges excluded: .6 and .9 alone.
    assert activity.in_window == 2 / 16


def test_neurons_of_other_libraries_are_found_by_what_they_do():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), Threshold(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(8, 2))
    (activity,) = seen(net, torch.randn(16, 3), num_samples=16)
    assert (activity.name, activity.kind, activity.in_window) == ("1", "Threshold", None)
    assert 0 < activity.firing_rate < 1


class Graded(sb.LIF):
    def forward(self, x):
        return 0.5 * super().forward(x)


def test_spikes_that_are_neither_0_nor_1_are_counted():
    (activity,) = seen(nn.Sequential(Graded(1, backend="reference")), torch.full((3, 5), 2.0), num_samples=3)
    assert activity.not_binary == 15


@pytest.mark.parametrize("static", [False, True])
def test_the_window_is_that_of_the_membrane_it_runs_on(static):
    neuron = sb.LIF(
        3, decay=0.5, threshold=1.0, surrogate=sb.surrogates.Rectangular(half_width=0.3), backend="reference"
    )
    neuron.static_input = static
    x = torch.full((1 if static else 3, 1), 0.6)  # membranes .6, .9 and 1.05
    (activity,) = seen(nn.Sequential(neuron), x, num_samples=1)
    assert activity.in_window == pytest.approx(2 / 3)
    assert activity.firing_rate == pytest.approx(1 / 3)


class SharedByStages(nn.Module):
    """One activation for layers of several widths, as torchvision's bottlenecks have it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(1, 6, 2), nn.Linear(6, 3), nn.ReLU()

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x)).flatten(1)))


def test_a_neuron_that_layers_share_is_one_of_each():
    torch.manual_seed(0)
    net = sb.spikify(
        SharedByStages(), num_steps=2, neuron=lambda num_steps: sb.LIF(num_steps, threshold=0.1, backend="reference")
    )
    x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 3
    seen = sb.health.measure(net, x, y, loss=sb.losses.ShortcutLoss(), coefficient=0.0, backend="reference")
    assert [neuron.name for neuron in seen.neurons] == ["relu", "relu (call 2)"]
    assert [len(neuron.gradient_by_step) for neuron in seen.neurons] == [2, 2]
    inner = net.network
    spikes = [inner.relu(inner.first(x.repeat(2, 1, 1, 1)))]
    spikes.append(inner.relu(inner.second(spikes[0].flatten(1))))
    for neuron, fired in zip(seen.neurons, spikes, strict=True):
        assert neuron.firing_rate == pytest.approx(fired.mean().item())
        assert neuron.dead == (fired.sum(0) == 0).double().mean().item()


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.neuron = sb.LIF(2, decay=0.0, backend="reference")

    def forward(self, x):
        return self.neuron(x=x)


def test_a_neuron_called_by_keyword_is_measured_as_any_other():
    x = torch.tensor([[0.6, 2.0], [1.5, 2.0]])
    net = ByKeyword()
    by_keyword, plain = (seen(each, x, num_samples=1)[0] for each in (net, nn.Sequential(net.neuron)))
    assert (by_keyword.firing_rate, by_keyword.in_window) == (3 / 4, 2 / 4)
    assert (plain.firing_rate, plain.in_window) == (3 / 4, 2 / 4)


class ByStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.fast, self.slow, self.fc = nn.Linear(6, 8), sb.LIF(), sb.LIF(), nn.Linear(8, 5)

    def forward(self, x):
        state = None
        for _ in range(3):
            spikes, state = self.fast.step(self.a(x), state)
        return self.fc(self.slow(spikes) if self.training else spikes)


def test_what_neurons_do_in_step_is_said_to_be_unseen():
    torch.manual_seed(0)
    net, x, y = ByStep(), 4 * torch.randn(4, 6), torch.arange(4)
    report = sb.health.GradientReport.of(
        sb.health.measure(net, x, y, loss=sb.losses.ShortcutLoss(), coefficient=0.0, backend="reference")
    )
    assert report.measurement.unseen == ["fast"]
    assert "not measured because their forward is not called, as in a loop over step(): fast" in str(report)
    net.slow = nn.Identity()
    seen = sb.health.measure(net, x, y, loss=sb.losses.ShortcutLoss(), coefficient=0.0, backend="reference")
    assert "no neurons were seen: the forward of fast is not called" in sb.health.judge(seen).reason


class TwiceWithGradients(nn.Module):
    """Calls its neuron a second time where gradients are enabled."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.neuron = sb.LIF(2, threshold=0.1, backend="reference")

    def forward(self, x):
        spikes = self.neuron(self.a(x).repeat(2, 1))
        if torch.is_grad_enabled():
            spikes = self.neuron(self.b(spikes))
        return self.fc(spikes).unflatten(0, (2, -1)).mean(0)


def test_a_call_that_only_a_forward_with_gradients_makes_is_left_out():
    torch.manual_seed(0)
    x, y = torch.rand(4, 6), torch.arange(4)
    seen = sb.health.measure(TwiceWithGradients(), x, y, loss=sb.losses.ShortcutLoss(), coefficient=0.0)
    assert [(neuron.name, len(neuron.gradient_by_step)) for neuron in seen.neurons] == [("neuron", 2)]
