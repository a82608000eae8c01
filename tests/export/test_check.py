import pytest
import torch

import shortback as sb
from shortback.export.check import Recording, compare, record
from tests.export.networks import images, network


def flip(recording, call, step, image, where):
    """The recording with spikes that differ."""
    spikes = {name: value.clone() for name, value in recording.spikes.items()}
    spikes[call][step, image][where] = 1 - spikes[call][step, image][where]
    return Recording(recording.outputs, spikes)


def test_a_recording_is_the_forward():
    model, x = network("foreign"), images()
    recording = record(model, x)
    with torch.no_grad():
        assert torch.equal(recording.outputs.mean(0), model(x))
    assert list(recording.spikes)[:3] == ["stem.2", "block1.relu", "block1.relu:2"]
    assert recording.spikes["act"].shape == (3, 4, 12, 4, 4)
    assert all(((s == 0) | (s == 1)).all() for s in recording.spikes.values())
    assert all(m.on_spikes is None for m in model.modules() if isinstance(m, sb.neurons.SpikingNeuron))


def test_equal_is_equal():
    model, x = network("resnet20"), images()
    check = compare(model, x, record(model, x), executor="itself")
    assert (check.flipped, check.first_layer, check.margin, check.images_flipped) == (0, None, None, 0)
    assert check.spikes == sum(s.numel() for s in record(model, x).spikes.values())
    assert check.difference_by_step == (0.0, 0.0, 0.0)
    check.require()


def test_a_readout_without_its_bias_is_not_written():
    """The same spikes and other outputs, in some images alone too."""
    model, x = network("resnet20"), images()
    ours = record(model, x)
    for where in (slice(None), slice(2, 3)):
        outputs = ours.outputs.clone()
        outputs[:, where] -= 0.05
        check = compare(model, x, Recording(outputs, ours.spikes), executor="without a bias")
        assert check.flipped == 0
        torch.testing.assert_close(check.unexplained, 0.05 / float(ours.outputs.abs().max()), rtol=1e-3, atol=0)
        with pytest.raises(ValueError, match="the same spikes gave outputs that differ"):
            check.require()


def test_margins_are_by_hand():
    """Of where each image begins to differ: what follows from it does not count."""
    model, x = network("resnet20"), images()
    ours = record(model, x)
    currents = []
    neuron = model.network.layer1[0].neuron1
    handle = neuron.register_forward_pre_hook(lambda module, args: currents.append(args[0]))
    with torch.no_grad():
        model(x)
    handle.remove()
    u, v = [], 0.0
    for current in currents[0].unflatten(0, (3, -1)):
        u.append(0.5 * v + current)
        v = u[-1] * (u[-1] < 1)
    distance = (torch.stack(u) - 1).abs()

    theirs = flip(ours, "layer1.0.neuron1", 1, 2, (0, 5, 5))
    later = flip(theirs, "layer1.0.neuron1", 2, 2, (1, 3, 3))
    deeper = flip(later, "layer3.0.neuron1", 1, 2, (0, 0, 0))
    for case in (theirs, later, deeper):
        check = compare(model, x, case, executor="flips")
        assert check.first_layer == "layer1.0.neuron1"
        assert check.images_flipped == 1
        torch.testing.assert_close(check.margin, float(distance[1, 2, 0, 5, 5]), rtol=1e-4, atol=1e-6)
    assert check.flipped == 3


def test_margins_of_a_neuron_called_by_name():
    class ByName(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.fc = torch.nn.ReLU(), torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.act(x=x).flatten(1))

    model, x = sb.spikify(ByName(), num_steps=2), torch.full((1, 1, 2, 2), 0.75)
    check = compare(model, x, flip(record(model, x), "act", 0, 0, (0, 1, 1)), executor="flips")
    assert check.margin == pytest.approx(0.25)


def test_the_furthest_image_is_named():
    model, x = network("resnet20"), images()
    ours = record(model, x)
    near = min(
        float(compare(model, x, flip(ours, "stem.neuron1", 0, 0, (0, i, i)), executor="").margin) for i in range(9)
    )
    both = flip(flip(ours, "stem.neuron1", 0, 0, (0, 0, 0)), "layer2.0.neuron1", 0, 3, (0, 0, 0))
    check = compare(model, x, both, executor="flips")
    assert check.images_flipped == 2
    assert check.margin >= near
    with pytest.raises(ValueError, match=str(check.first_layer)):
        check.require()


def test_layers_that_say_nothing_are_named():
    model = sb.create_model("resnet20", width=0.25, num_steps=2).eval()
    check = compare(model, 0 * images(), record(model, 0 * images()), executor="itself")
    assert len(check.silent) == 19
    assert "nothing fired in 19 layers" in str(check)


def test_outputs_that_are_maps_and_networks_without_neurons():
    torch.manual_seed(0)
    model, x = sb.spikify(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), num_steps=3), images()
    check = compare(model, x, record(model, x), executor="itself")
    assert check.difference_by_step == (0.0, 0.0, 0.0)
    assert "differ at each step" in str(check)
    plain = sb.SpikingNetwork(torch.nn.Conv2d(3, 4, 3), num_steps=3)
    with pytest.raises(ValueError, match="no spikes to compare"):
        compare(plain, x, record(plain, x), executor="itself")
