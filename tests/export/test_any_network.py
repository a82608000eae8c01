"""Operations of networks of other libraries, beside counts by hand and by a convolution of ones."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.export.any_network import count_any, dense_of_ann
from tests.export.networks import images, network
from tests.networks.research import AudioNetwork, StepResNet
from tests.networks.zoo import SpikesAndMembrane, spikformer, time_first

pytestmark = pytest.mark.filterwarnings("default")  # what the libraries warn of is theirs

# Two images of 2x2, off every threshold. Of 2x2 pixels each is in all 4 windows of a kernel of 3x3 with a padding of 1.
IMAGES = torch.tensor([[[[1.2, 0.6], [0.0, 0.8]]], [[[0.0, 0.0], [0.0, 1.2]]]])
CONV_DENSE = 4 * 4 * 2  # pixels, windows, channels
CONV_ACTIVE = (3 + 1) * 4 * 2 / 2  # pixels that are not zero, of both images; an image
FC_DENSE = 8 * 3
SECOND = 0.5  # the weight of the second channel; that of the first is 1


def set_weights(conv, fc):
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, 0, 1, 1] = torch.tensor([1.0, SECOND])
        fc.weight.copy_(torch.arange(24.0).view(3, 8))


def test_spikingjelly_by_hand():
    """IF neurons that reset to 0, T=2. Spikes of the first channel, by pixel: 1, 0, 0, 0 and then 1, 1, 0, 1 of the
    first image, and the last pixel twice of the second. Of the second channel, with half the current: the first pixel
    at the second step, and the last of the second image there."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    net = nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1, bias=False), neuron.IFNode(), layer.Flatten(), layer.Linear(8, 3, bias=False)
    )
    functional.set_step_mode(net, "m")
    set_weights(net[0], net[3])
    counted = sb.count_operations(net, [IMAGES.expand(2, *IMAGES.shape).clone()])
    conv, fc = counted.layers
    assert (counted.num_steps, counted.images) == (2, 2)
    assert (conv.name, conv.dense, conv.macs, conv.acs) == ("0", 2 * CONV_DENSE, 2 * CONV_ACTIVE, 0)
    spikes = (1 + 3 + 1) + (2 + 1)
    assert (fc.name, fc.dense, fc.macs, fc.acs) == ("3", 2 * FC_DENSE, 0, spikes * 3 / 2)
    assert (conv.spiking_input, fc.spiking_input) == (False, True)
    assert fc.input_rate == counted.firing_rate["1"] == spikes / (2 * 2 * 8)
    assert counted.dense_of_ann == CONV_DENSE + FC_DENSE
    assert counted.state_bytes == 4 * 8
    assert counted.not_counted == []


class Looped(nn.Module):
    """A network of snnTorch: what comes before time runs once, the rest in a loop."""

    def __init__(self, num_steps=2):
        super().__init__()
        snn = pytest.importorskip("snntorch")
        self.conv, self.fc = nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Linear(8, 3, bias=False)
        self.lif, self.num_steps = snn.Leaky(beta=0.5, reset_mechanism="none"), num_steps
        set_weights(self.conv, self.fc)

    def forward(self, x):
        current, membrane, outputs = self.conv(x), self.lif.reset_mem(), []
        for _ in range(self.num_steps):
            spikes, membrane = self.lif(current, membrane)
            outputs.append(self.fc(spikes.flatten(1)))
        return torch.stack(outputs)


def test_snntorch_in_a_loop_by_hand():
    """Leaky neurons without a reset, T=2: of a current I the membranes are I and 1.5 I. Spikes of the first channel:
    1.2 at both steps, 0.8 at the second; of the second channel none."""
    counted = sb.count_operations(Looped(), [IMAGES])
    conv, fc = counted.layers
    assert (counted.num_steps, counted.images) == (2, 2)
    assert (conv.dense, conv.macs, conv.acs) == (CONV_DENSE, CONV_ACTIVE, 0)
    spikes = (2 + 1) + 2
    assert (fc.dense, fc.macs, fc.acs) == (2 * FC_DENSE, 0, spikes * 3 / 2)
    assert counted.firing_rate == {"lif": spikes / (2 * 2 * 8)}
    assert counted.dense_of_ann == CONV_DENSE + FC_DENSE
    assert counted.state_bytes == 4 * 8


def test_batches_are_averaged_and_states_forgotten():
    whole, parts = sb.count_operations(Looped(), [IMAGES]), sb.count_operations(Looped(), [(IMAGES, 0), (IMAGES, 0)])
    assert parts.images == 4
    assert parts.to_dict() | {"images": 2} == whole.to_dict()
    assert [p for p in Looped().eval().modules() if p._forward_hooks] == []


@torch.no_grad()
def by_ones(net, x):
    """Operations on inputs that are not zero, by layer, of the batch: a convolution of ones in each call."""
    counts, handles = {}, []

    def note(name, module, args, output):
        active, ones = (args[0] != 0).double(), torch.ones_like(module.weight).double()
        if isinstance(module, nn.Linear):
            operations = nn.functional.linear(active, ones)
        else:
            operations = nn.functional.conv2d(active, ones, None, module.stride, module.padding)
        counts[name] = counts.get(name, 0) + float(operations.sum())

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(lambda m, a, o, name=name: note(name, m, a, o)))
    net.eval()(x)
    for handle in handles:
        handle.remove()
    return counts


def test_neurons_that_someone_has_written():
    """Found by what they return; the time loop is the network's own."""
    torch.manual_seed(0)
    net, x = StepResNet(3), 2 * torch.randn(4, 1, 8, 8)
    counted = sb.count_operations(net, [x])
    assert counted.num_steps == 3
    expected = by_ones(net, x)
    assert {layer.name: (layer.macs + layer.acs) * 4 for layer in counted.layers} == pytest.approx(expected)
    assert counted.layers[1].acs > 0
    assert len(counted.firing_rate) == 13


def test_a_membrane_that_is_read_out_is_no_rate():
    torch.manual_seed(0)
    norse = pytest.importorskip("norse.torch")
    p = norse.LIFParameters(v_th=torch.tensor(0.1))
    layers = norse.Lift(nn.Conv2d(1, 2, 5)), norse.LIF(p=p), nn.Flatten(2), nn.Linear(32, 4), norse.LI()
    net = norse.SequentialState(*layers)
    counted = sb.count_operations(net, [2 * torch.randn(3, 4, 1, 8, 8)])
    assert counted.num_steps == 3
    assert list(counted.firing_rate) == ["1"]
    assert counted.state_bytes == 4 * (32 + 4)


def test_the_network_is_left_as_it_was():
    torch.manual_seed(0)
    net, x = SpikesAndMembrane().train(), torch.randn(2, 1, 28, 28)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sb.count_operations(net, [x])
    assert all(module.training for module in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.slow
def test_products_of_attention_are_said_not_to_be_counted():
    torch.manual_seed(0)
    counted = sb.count_operations(spikformer(), [time_first(torch.randn(2, 1, 32, 32))])
    assert counted.not_counted == ["matmul (a function)"]
    assert any("qkv" in layer.name and layer.dense for layer in counted.layers)


@pytest.mark.parametrize("num_steps", [None, 3])
def test_a_network_of_ours_is_counted_the_same(num_steps):
    """As if it were of another library: a static image runs through the first layer once."""
    model, x = network("foreign"), images(num_steps=num_steps)
    ours = sb.count_operations(model, [x])
    count, steps = count_any(model, [x])
    assert steps == 3
    found = {name.removeprefix("network."): (s.dense / 4, s.macs / 4, s.acs / 4) for name, s in count.layers.items()}
    assert found == {layer.name: (layer.dense, layer.macs, layer.acs) for layer in ours.layers}
    assert dense_of_ann(count, steps) == pytest.approx(ours.dense_of_ann)


def test_steps_that_are_not_to_be_found_are_asked_for():
    """Samples lie first, and time is another axis of its neurons."""
    torch.manual_seed(0)
    net, x = AudioNetwork(5), torch.randn(3, 7, 5)
    with pytest.raises(ValueError, match=r"how many time steps AudioNetwork runs .*: give num_steps="):
        sb.count_operations(net, [x])
    counted = sb.count_operations(net, [(x, torch.zeros(3))], num_steps=7)
    assert (counted.num_steps, counted.images) == (7, 3)
    first = counted.layers[0]
    assert counted.dense_of_ann == pytest.approx(counted.dense / 7)
    assert first.dense == 7 * 5 * dict(net.named_modules())[first.name].out_features


class Folded(nn.Module):
    """Takes `[N*T, F]`, where only the caller knows `T`."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.fc = nn.Linear(4, 8), sb.LIF(2, threshold=0.1, backend="reference"), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.act(self.first(x)))


def test_samples_of_steps_that_are_given_are_counted_by_labels():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.zeros(3)
    for batch in (x, (x, None)):
        with pytest.raises(ValueError, match=r"num_steps= without labels .*: give num_steps=, and batches \(x, y\)"):
            sb.count_operations(Folded(), [batch], num_steps=2)
    counted = sb.count_operations(Folded(), [(x, y)], num_steps=2)
    assert counted.images == 3
    assert counted.layers[0].dense == 2 * 4 * 8
    assert counted.dense_of_ann == 4 * 8 + 8 * 3


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="no image"):
        count_any(Looped(), [])
    with pytest.raises(ValueError, match=r"no neuron is seen to fire in Sequential: .* spikify"):
        sb.count_operations(nn.Sequential(nn.Linear(2, 2)), [torch.randn(2, 2)])
    net = sb.attach(StepResNet(2), sample=torch.randn(2, 1, 8, 8), at=["layer1"])
    with pytest.raises(ValueError, match=r"ShortcutNetwork with a StepResNet within: give net\.model"):
        sb.count_operations(net, [torch.randn(2, 1, 8, 8)])
    assert sb.count_operations(net.model, [torch.randn(2, 1, 8, 8)]).num_steps == 2


class Noisy(nn.Module):
    """Draws its input anew, so that no run is like another."""

    def __init__(self):
        super().__init__()
        self.act, self.fc = sb.LIF(2, threshold=0.5, backend="reference"), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.act(torch.rand(2 * len(x), 4))).unflatten(0, (2, -1)).mean(0)


def test_samples_that_are_not_to_be_found_are_asked_for():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.zeros(6)
    with pytest.raises(ValueError, match=r" Noisy .*: give num_steps="):
        sb.count_operations(Noisy(), [x])
    assert sb.count_operations(Noisy(), [(x, y)], num_steps=2).layers[0].dense == 2 * 4 * 3
