"""Models by name: what is listed, how large it is, that it trains, and what a wrong name is told."""

import functools
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from shortback.models import create_model, list_models, register_model, registry
from shortback.models.layers import ModelSettings
from shortback.neurons import IF, LIF, TimeModule

NEURON = functools.partial(LIF, backend="reference")

NUM_PARAMETERS = {
    "resnet18": 11_173_962,  # as the usual CIFAR ResNet-18 of PyTorch
    "resnet19": 12_569_226,
    "resnet20": 272_474,
    "resnet20_modified": 11_247_946,
    "resnet32": 466_906,
    "resnet34": 21_282_122,
    "resnet44": 661_338,
    "resnet56": 855_770,
    "resnet110": 1_730_714,
    "vgg11": 9_228_362,
    "vgg13": 9_413_066,
    "vgg16": 14_724_042,
    "vggsnn": 9_228_362,
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_model_is_listed_and_numbers_sort_as_numbers():
    assert list_models() == list(NUM_PARAMETERS)
    assert list_models("vgg*") == ["vgg11", "vgg13", "vgg16", "vggsnn"]
    assert list_models("densenet*") == []


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_number_of_parameters(name):
    with torch.device("meta"):
        assert count(create_model(name, neuron=NEURON)) == NUM_PARAMETERS[name]


@pytest.mark.parametrize(("name", "expected"), [("resnet18", 11_689_512), ("resnet34", 21_797_672)])
def test_imagenet_resnets_are_as_large_as_those_of_torchvision(name, expected):
    with torch.device("meta"):
        ours = create_model(name, num_classes=1000, stem="imagenet", neuron=NEURON)
        assert count(ours) == count(torchvision.models.get_model(name)) == expected


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16"])
def test_vgg_convolutions_are_those_of_torchvision(name):
    with torch.device("meta"):
        ours = create_model(name, neuron=NEURON)
        features = torchvision.models.get_model(f"{name}_bn").features
    assert isinstance(features, nn.Module)
    biases = sum(m.bias.numel() for m in features if isinstance(m, nn.Conv2d) and m.bias is not None)
    assert count(ours) == count(features) - biases + 512 * 10 + 10


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_every_model_runs_forward_and_backward(name):
    torch.manual_seed(0)
    model = create_model(name, num_steps=2, num_classes=5, in_channels=2, width=0.125, neuron=NEURON)
    logits = model(torch.randn(2, 2, 16, 16))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_stages_and_blocks_name_submodules_in_order(name):
    with torch.device("meta"):
        network = create_model(name, neuron=NEURON).network
    in_order = [module_name for module_name, _ in network.named_modules()]
    for names in (network.stages(), network.blocks()):
        assert len(names) > 2
        assert names == sorted(names, key=in_order.index)
    assert [block.split(".")[0] for block in network.blocks()] == sorted(
        block.split(".")[0] for block in network.blocks()
    )


def test_every_neuron_comes_from_the_factory_with_the_number_of_steps():
    model = create_model("vgg11", width=0.1, num_steps=3, neuron=IF)
    neurons = [m for m in model.modules() if isinstance(m, TimeModule)]
    assert len(neurons) == 8
    assert all(type(m) is IF and m.num_steps == 3 for m in neurons)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet21", {}, "unknown model 'resnet21'; the nearest are resnet"),
        ("zzz", {}, "unknown model 'zzz'. Known are: resnet18, resnet19"),
        (
            "resnet20",
            {"widht": 2},
            "no setting 'widht'; the nearest are width.* Known are: num_classes, .*neuron, norm, residual, width",
        ),
        ("resnet20", {"stem": "imagenet"}, "no setting 'stem'"),
        ("vgg11", {"residual": "sew"}, "no setting 'residual'.* Known are: num_classes, .* norm, pool, width"),
        (
            "resnet20",
            {"residual": "none"},
            "residual='none': must be one of spiking, sew, membrane, plain",
        ),
        ("resnet18", {"stem": "mnist"}, "stem='mnist': must be one of cifar, imagenet"),
        ("vgg11", {"pool": "min"}, "pool='min': must be one of max, average"),
        ("vgg11", {"norm": "layer"}, "norm='layer': must be one of batch, tdbn, tebn, none"),
        ("vgg11", {"width": 0}, "width=0: must be a positive number"),
        ("vgg11", {"width": "wide"}, "width='wide': must be a positive number"),
        ("vgg11", {"num_steps": 0}, "num_steps=0: must be a whole number, 1 or more"),
        ("vgg11", {"num_classes": -1}, "num_classes=-1"),
        ("vgg11", {"num_steps": True}, "num_steps=True: must be a whole number, 1 or more"),
        ("vgg11", {"in_channels": 1.5}, "in_channels=1.5"),
        ("vgg11", {"neuron": LIF(4)}, r"neuron=LIF\(.*must be callable with num_steps"),
        ("vgg11", {"neuron": "lif"}, "neuron='lif': must be callable with num_steps"),
    ],
)
def test_a_mistake_is_told_what_to_write_instead(name, settings, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **settings)


def test_a_model_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))

    @register_model
    def tiny(*, num_classes: int, num_steps: int, in_channels: int, neuron: Any, channels: int = 3) -> nn.Module:
        conv = nn.Conv2d(in_channels, channels, 1)
        return nn.Sequential(conv, neuron(num_steps), nn.Flatten(), nn.LazyLinear(num_classes))

    model = create_model("tiny", neuron=NEURON, channels=2)
    assert model(torch.zeros(5, 3, 4, 4)).shape == (5, 10)
    with pytest.raises(ValueError, match="no setting 'channel'; the nearest are channels"):
        create_model("tiny", channel=2)
    with pytest.raises(ValueError, match="registered already"):
        register_model(tiny)

    def untyped(**settings):
        raise AssertionError

    with pytest.raises(ValueError, match=r"annotate \*\*settings as Unpack"):
        register_model(untyped)


def test_common_settings_are_what_create_model_passes():
    assert set(ModelSettings.__annotations__) == {"num_classes", "num_steps", "in_channels", "neuron"}
