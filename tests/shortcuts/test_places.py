import pytest
import torch
import torchvision
from torch import nn

import shortback as sb
from shortback.models import create_model
from shortback.shortcuts.places import find_places
from shortback.spiking.spikify import spikify


def test_every_model_of_ours_has_blocks_and_stages():
    model = create_model("resnet32")
    assert len(find_places(model, "blocks")) == 14
    assert list(find_places(model, "stages")) == ["layer1", "layer2"]


def test_a_spikified_torchvision_network():
    model = spikify(torchvision.models.resnet18(num_classes=10), num_steps=2)
    assert list(find_places(model, "blocks")) == [
        f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1) if (i, j) != (4, 1)
    ]
    assert list(find_places(model, "stages")) == ["layer1", "layer2", "layer3"]
    assert list(find_places(model, ["layer2.0", "layer1"])) == ["layer1", "layer2.0"]  # in the network's order


def test_a_misspelt_place_names_the_nearest():
    with pytest.raises(ValueError, match="the nearest are blocks"):
        find_places(create_model("resnet20"), "block")


class Mine(nn.Module):
    """A neuron of a class that nobody knows."""

    def forward(self, x):
        return (x > 0.5).to(x.dtype)


class Plainly(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 4, 3), Mine()
        self.conv2, self.lif2 = nn.Conv2d(4, 4, 3), Mine()
        self.pool, self.fc, self.never = nn.MaxPool2d(2), nn.Linear(64, 10), nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x):
        return self.fc(self.pool(self.lif2(self.conv2(self.lif1(self.conv1(x))))).flatten(1))


def test_neurons_written_by_hand_are_known_by_what_they_do(batch):
    assert sb.attach(Plainly(), sample=batch[0]).places == ("lif1",)
    assert sb.attach(Plainly(), sample=torch.zeros_like(batch[0])).places == ("lif1",)


def test_blocks_of_timm_and_of_a_sequence():
    timm = pytest.importorskip("timm")
    convnext = timm.create_model("convnext_atto", num_classes=10)
    assert list(find_places(convnext, "blocks"))[:3] == ["stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0"]
    assert list(find_places(convnext, "stages")) == [f"stages.{i}.blocks" for i in range(3)]
    mobile = timm.create_model("mobilenetv3_small_050", num_classes=10)
    assert list(find_places(mobile, "blocks"))[:2] == ["blocks.0.0", "blocks.1.0"]
    vgg = torchvision.models.vgg11(num_classes=10)
    assert list(find_places(vgg, "blocks"))[:3] == ["features.1", "features.4", "features.7"]


class Shared(nn.Module):
    """One neuron for all layers, and blocks of no container."""

    def __init__(self, depth=4):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4 if i else 1, 4, 3, padding=1) for i in range(depth)])
        self.fire, self.fc = Mine(), nn.Linear(4, 10)

    def forward(self, x):
        for layer in self.layers:
            x = self.fire(layer(x))
        return self.fc(x.mean((2, 3)))


def test_one_neuron_for_all_layers_has_branches_before_it(batch):
    net = sb.attach(Shared(), sample=batch[0])
    assert net.places == ("layers.0", "layers.1", "layers.2")
    assert list(net(batch[0]).branches) == list(net.places)


class FunctionBlock(nn.Module):
    """Fires by a function; what it returns is a sum."""

    def __init__(self, in_channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return x + (self.norm(self.conv(x)) > 0.5).to(x.dtype)


class Flat(nn.Module):
    """Blocks in one container, or in lists that are never called."""

    def __init__(self, num_blocks, *, lists=False, block=FunctionBlock):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        blocks = [block(4) for _ in range(num_blocks)]
        self.blocks = nn.ModuleList([nn.ModuleList(blocks[:3]), nn.ModuleList(blocks[3:])] if lists else blocks)
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        x = self.stem(x)
        for part in self.blocks:
            for block in part if isinstance(part, nn.ModuleList) else [part]:
                x = block(x)
        return self.fc(x.mean((2, 3)))


def test_neurons_that_are_no_module(batch):
    assert sb.attach(Flat(4), sample=batch[0]).places == ("blocks.0", "blocks.1", "blocks.2")


def test_stages_of_a_flat_network_are_even_parts_of_its_blocks(batch):
    def places(num_blocks, **settings):
        return sb.attach(Flat(num_blocks, **settings), at="stages", sample=batch[0]).places

    assert places(6) == ("blocks.1", "blocks.3")
    assert places(8) == ("blocks.1", "blocks.3", "blocks.5")
    assert places(2) == ("blocks.0",)
    assert places(7, lists=True) == ("blocks.0.2",)  # in place of a list that is not called


def test_a_hint_names_what_can_be_tapped(batch):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.conv, self.fc = nn.Linear(2, 2), nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)))

    with pytest.raises(ValueError, match=r"has 0 blocks.*e\.g\. at=\['conv'\]"):
        sb.attach(Two(), sample=batch[0])


class Odd(nn.Module):
    """Two blocks in a list, and five of another class beside it."""

    def __init__(self):
        super().__init__()
        self.list = nn.ModuleList([Firing(1), Firing(4)])
        for i in range(5):
            self.add_module(f"extra{i}", Firing2(4))
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        for name, module in self.named_children():
            if name.startswith("extra"):
                x = module(x)
            elif name == "list":
                x = module[1](module[0](x))
        return self.fc(x.mean((2, 3)))


class Firing(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.conv, self.lif = nn.Conv2d(in_channels, 4, 3, padding=1), Mine()

    def forward(self, x):
        return self.lif(self.conv(x))


class Firing2(Firing):
    pass


def test_few_blocks_beside_a_class_that_repeats_are_told(batch, caplog):
    assert sb.attach(Odd(), sample=batch[0]).places == ("list.0",)
    assert "Odd has 2 blocks, but Firing2 is repeated 5 times" in caplog.text
    assert "at=['extra0', 'extra1', 'extra2', 'extra3']" in caplog.text


def test_modules_that_are_called_blocks_and_stages_are_no_methods(batch):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), sb.LIF(1)) for _ in range(3))
            self.stages = nn.ModuleList([nn.Identity()])
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    assert sb.attach(Named(), at="blocks", sample=torch.rand(2, 4)).places == ("blocks.0", "blocks.1")


class Recurrent(nn.Module):
    """A layer that fires by itself, with weights of its own."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.Linear(6, 6)

    def forward(self, x):
        return (self.recurrent(x) + x > 0).to(x.dtype)


class Mixed(nn.Module):
    """Neurons with weights and without in one row, named one by one or in a list; a shared one at the end."""

    def __init__(self, which, *, listed):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(8 if not i else 6, 6) for i in range(len(which))]
        neurons = [Recurrent() if each == "r" else Mine() for each in which]
        if listed:
            self.layers, self.neurons = nn.ModuleList(layers), nn.ModuleList(neurons)
        else:
            for i, (layer, neuron) in enumerate(zip(layers, neurons, strict=True)):
                self.add_module(f"fc{i}", layer)
                self.add_module(f"neuron{i}", neuron)
        self.steps = [(layer, neuron) for layer, neuron in zip(layers, neurons, strict=True)]
        self.shared, self.fc = Mine(), nn.Linear(6, 3)

    def forward(self, x):
        for layer, neuron in self.steps:
            x = neuron(layer(x.flatten(1)))
        return self.fc(self.shared(self.shared(x - 0.5)))


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("which", ["rrm", "mrr", "rmrm", "rrr"])
def test_recurrent_neurons_beside_plain_ones(which, listed):
    net = Mixed(which, listed=listed)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    names = [f"neurons.{i}" if listed else f"neuron{i}" for i in range(len(which))]
    assert list(sb.attach(net, sample=x).places) == names[:-1]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(6, 6), nn.ReLU()

    def forward(self, x):
        return self.act(self.layer(x))


class UpAfterDown(nn.Module):
    """Registers what it calls last first."""

    def __init__(self):
        super().__init__()
        self.up, self.down = (nn.ModuleList(Block() for _ in range(2)) for _ in range(2))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        for block in (*self.down, *self.up):
            x = block(x)
        return self.fc(x)


def test_the_last_block_is_the_one_that_is_called_last():
    x = torch.randn(4, 6)
    assert sb.attach(UpAfterDown(), sample=x).places == ("down.0", "down.1", "up.0")
    assert sb.attach(UpAfterDown(), at="stages", sample=x).places == ("down.1",)


def test_a_module_may_be_called_by_its_second_name():
    net = nn.Sequential(Block(), nn.Linear(6, 5))
    net[0].alias = net[0].layer
    assert sb.attach(net, at="0.alias", sample=torch.randn(4, 6)).places == ("0.alias",)
    with pytest.raises(ValueError, match="named twice"):
        find_places(net, ["0.layer", "0.alias"])
    for name in ("", "0.no"):
        with pytest.raises(ValueError, match="has no such module"):
            find_places(net, [name])


class Stepping(nn.Module):
    """Runs its neurons by `step()`."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.lif, self.lif2 = sb.LIF(backend="reference"), sb.LIF(backend="reference")

    def forward(self, x):
        states, out = [None, None], 0
        for _ in range(3):
            spikes, states[0] = self.lif.step(self.a(x), states[0])
            spikes, states[1] = self.lif2.step(self.b(spikes), states[1])
            out = out + self.fc(spikes)
        return out / 3


def test_neurons_that_are_run_by_steps_are_told():
    net, x = Stepping(), 4 * torch.randn(4, 6)
    with pytest.raises(ValueError, match=r"e\.g\. at=\['a', 'b'\]\. lif, lif2: never called, and neuron\.step"):
        sb.attach(net, sample=x)
    assert sb.attach(net, at=["a", "b"], sample=x).places == ("a", "b")


class Inline(nn.Module):
    """Neurons that are lines of the `forward`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        x = (self.conv1(x) > 0.3).to(x.dtype)
        return self.fc((self.conv2(x) > 0.3).to(x.dtype).mean((2, 3)))


class Functional(Inline):
    """No spikes at all."""

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x).relu()).relu().mean((2, 3)))


class Hushed(Mine):
    def forward(self, x):
        return (x > 1e9).to(x.dtype)


def test_neurons_that_are_no_modules_are_told_of(batch, caplog):
    with pytest.raises(ValueError, match=r"0 blocks.*no module of Inline returns spikes: put each neuron") as caught:
        sb.attach(Inline(), sample=batch[0])
    assert "at=[" not in str(caught.value)
    with pytest.raises(ValueError, match=r"returns spikes.*In a network without neurons name the modules.*'conv1'"):
        sb.attach(Functional(), sample=batch[0])
    assert not caplog.messages
    assert sb.attach(Inline(), at=["conv1", "conv2"], sample=batch[0]).places == ("conv1", "conv2")
    (message,) = caplog.messages
    assert "no module of Inline returns spikes, so the branches at conv1, conv2 tap currents" in message


def test_names_in_networks_that_fire_or_have_no_neurons_are_taken_as_they_are(batch, caplog):
    x, _ = batch
    sb.attach(Functional(), at=["conv1"], sample=x)
    sb.attach(Functional(), at=["conv1"], sample=(x > 0).float())
    sb.attach(Plainly(), at=["conv1"], sample=x)
    sb.attach(torchvision.models.resnet18(num_classes=10), at=["layer1"], sample=x.expand(-1, 3, -1, -1))
    assert not caplog.messages


def test_neurons_that_never_fire_are_named(batch):
    net = Plainly()
    net.lif1, net.lif2 = Hushed(), Hushed()
    with pytest.raises(ValueError, match=r"no neuron fired: lif1, lif2 returned only zeros.*e\.g\. at=\['lif1'\]"):
        sb.attach(net, sample=batch[0])
