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


def test_a_branch_cannot_be_called_as_the_main_output_is():
    net = nn.Module()
    net.main = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="'main' is the name of the main output"):
        find_places(net, ["main"])


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
