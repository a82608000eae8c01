import pytest
import torchvision
from torch import nn

from shortback.models import create_model
from shortback.shortcuts.places import find_places
from shortback.spiking import spikify


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
