"""The structure of the VGGs: blocks, stages, pooling, image sizes."""

import functools

import pytest
import torch
from torch import nn

from shortback.models import create_model
from shortback.neurons import LIF

NEURON = functools.partial(LIF, backend="reference")


def test_blocks_and_stages():
    network = create_model("vgg16", width=0.1, neuron=NEURON).network
    assert network.stages() == ["layer1", "layer2", "layer3", "layer4", "layer5"]
    assert network.blocks()[:5] == ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0"]
    assert len(network.blocks()) == 13
    assert [name for name, _ in network.layer3.named_children()] == ["pool", "0", "1", "2"]
    assert [name for name, _ in network.layer3[1].named_children()] == ["conv", "norm", "neuron"]


def test_a_stage_is_a_resolution():
    network = create_model("vgg11", width=0.1, num_steps=1, neuron=NEURON).network
    sizes = []
    for name in network.stages():
        network.get_submodule(name).register_forward_hook(lambda module, args, out: sizes.append(out.shape[-1]))
    network(torch.randn(1, 3, 32, 32))
    assert sizes == [32, 16, 8, 4, 2]


def test_every_block_passes_spikes_on():
    torch.manual_seed(0)
    network = create_model("vgg11", width=0.25, num_steps=2, neuron=NEURON).network
    for name in network.blocks():
        network.get_submodule(name).register_forward_hook(
            lambda module, args, out: values.update(out.unique().tolist())
        )
    values: set[float] = set()
    network(torch.randn(4, 3, 16, 16))
    assert values == {0.0, 1.0}


@pytest.mark.parametrize(("pool", "kind"), [("max", nn.MaxPool2d), ("average", nn.AvgPool2d)])
def test_pooling_is_a_setting(pool, kind):
    network = create_model("vgg11", width=0.1, pool=pool, neuron=NEURON).network
    assert sum(isinstance(m, kind) for m in network.modules()) == 4


@pytest.mark.parametrize("size", [16, 28, 33])
def test_any_image_from_sixteen_pixels(size):
    model = create_model("vgg11", width=0.1, in_channels=1, neuron=NEURON)
    assert model(torch.randn(2, 1, size, size)).shape == (2, 10)


@pytest.mark.parametrize("pool", ["max", "average"])
def test_a_static_image_gives_what_a_sequence_of_it_gives(pool):
    torch.manual_seed(0)
    model = create_model("vgg11", width=0.25, pool=pool, num_steps=3, neuron=NEURON)
    x = torch.randn(2, 3, 16, 16)
    model(x)
    model.eval()
    assert model.expands_at == "neuron"
    torch.testing.assert_close(model(x), model(x.expand(3, *x.shape)), rtol=0, atol=1e-6)
