"""The residual kinds by hand-computed numbers, the stems, the initialisation, and depth without skips."""

import functools
from typing import get_args

import pytest
import torch
from torch import nn

from shortback.choices import Residual
from shortback.models import create_model
from shortback.models.layers import Layers
from shortback.models.residual import BLOCKS
from shortback.neurons import LIF, Expand

NEURON = functools.partial(LIF, backend="reference")
KINDS = get_args(Residual)


def children(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


# Both convolutions are one weight in the middle of the kernel, so pixels pass one by one. With one step, a
# threshold of 1 and x = [0.5, 1, 2, -3]:
@pytest.mark.parametrize(
    ("kind", "weight1", "expected"),
    [
        # s1 = [0, 0, 0, 1], so 1.5 s1 = [0, 0, 0, 1.5]
        ("plain", -1.0, [0, 0, 0, 1]),
        ("spiking", -1.0, [0, 1, 1, 0]),
        ("sew", -1.0, [0.5, 1, 2, -2]),
        ("membrane", -1.0, [0.5, 1, 2, -3]),  # fires at [0, 1, 1, 0], whose negative never fires again
        # s1 = [1, 1, 1, 0], so 1.5 s1 = [1.5, 1.5, 1.5, 0]
        ("plain", 2.0, [1, 1, 1, 0]),
        ("spiking", 2.0, [1, 1, 1, 0]),
        ("sew", 2.0, [1.5, 2, 3, -3]),
        ("membrane", 2.0, [0.5, 2.5, 3.5, -3]),  # fires at [0, 1, 1, 0], and twice that fires again
    ],
)
def test_residual_kinds_by_hand(kind, weight1, expected):
    block = BLOCKS[kind](1, channels=1, layers=Layers(num_steps=1, neuron=NEURON, norm="none"))
    for conv, weight in ((block.conv1, weight1), (block.conv2, 1.5)):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        conv.weight.data[0, 0, 1, 1] = weight
    out = block(torch.tensor([0.5, 1.0, 2.0, -3.0]).view(1, 1, 1, 4))
    assert out.flatten().tolist() == pytest.approx(expected)


def test_shortcuts_hold_only_what_the_kind_needs():
    layers = Layers(num_steps=1, neuron=NEURON)
    down = {kind: BLOCKS[kind](4, channels=8, layers=layers, stride=2) for kind in KINDS}
    assert children(down["spiking"].shortcut) == children(down["membrane"].shortcut) == ["subsample", "conv", "norm"]
    assert children(down["sew"].shortcut) == ["subsample", "conv", "norm", "neuron"]
    assert not hasattr(down["plain"], "shortcut")
    same = BLOCKS["spiking"](4, channels=4, layers=layers)
    assert children(same.shortcut) == []
    averaged = BLOCKS["spiking"](4, channels=8, layers=layers, stride=2, average_downsample=True)
    assert children(averaged.shortcut) == ["pool", "conv", "norm"]
    assert averaged(torch.randn(1, 4, 7, 7)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_block_passes_on(kind):
    torch.manual_seed(0)
    network = create_model("resnet20", residual=kind, num_steps=3, width=0.5, neuron=NEURON).network
    passed = network.layer2(network.layer1(network.stem(torch.randn(6, 3, 16, 16))))
    if kind in ("plain", "spiking"):
        assert set(passed.unique().tolist()) == {0.0, 1.0}
    elif kind == "sew":
        assert torch.equal(passed, passed.round())
        assert passed.max() > 1
    else:
        assert not torch.equal(passed, passed.round())
        assert set(network.neuron(passed).unique().tolist()) == {0.0, 1.0}


def test_stems():
    def stem(name: str, **settings) -> nn.Sequential:
        return create_model(name, neuron=NEURON, width=0.1, num_steps=1, **settings).network.stem

    x = torch.randn(1, 3, 32, 32)
    cifar = stem("resnet18")
    assert children(cifar) == ["conv1", "norm1", "neuron1"]
    assert cifar(x).shape[-2:] == (32, 32)
    imagenet = stem("resnet18", stem="imagenet")
    assert children(imagenet) == ["conv1", "norm1", "neuron1", "pool"]
    assert imagenet(x).shape[-2:] == (8, 8)
    deep = stem("resnet20_modified")
    assert children(deep)[-4:] == ["conv3", "norm3", "neuron3", "pool"]
    assert deep(x).shape[-2:] == (16, 16)
    membrane = stem("resnet20_modified", residual="membrane")
    assert children(membrane)[-4:] == ["conv3", "norm3", "pool", "expand"]


@pytest.mark.parametrize("name", ["resnet20", "resnet20_modified"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_static_image_is_expanded_once_and_gives_what_a_sequence_of_it_gives(name, kind):
    torch.manual_seed(0)
    model = create_model(name, residual=kind, num_steps=3, width=0.125, neuron=NEURON)
    assert model.expands_at == "neuron"
    x = torch.randn(2, 3, 16, 16)
    model(x)  # one update of the running statistics, so that neurons fire in eval
    model.eval()
    rows = []
    model.network.stem.conv1.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    torch.testing.assert_close(model(x), model(x.expand(3, *x.shape)), rtol=0, atol=1e-6)
    assert rows == [2, 6]


def test_membrane_expands_the_current_of_the_stem():
    network = create_model("resnet20", residual="membrane", neuron=NEURON).network
    assert isinstance(network.stem.expand, Expand)
    assert isinstance(network.neuron, LIF)


def test_initialisation():
    torch.manual_seed(0)
    network = create_model("resnet19", neuron=NEURON).network
    conv = network.layer2[1].conv1
    assert conv.bias is None
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert torch.equal(network.layer2[1].norm2.weight, torch.ones(256))
    without_norm = create_model("resnet20", norm="none", neuron=NEURON).network
    assert not any(isinstance(m, nn.BatchNorm2d) for m in without_norm.modules())
    assert all(m.bias is not None and not m.bias.any() for m in without_norm.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("kind", "starts_as_shortcut"), [("spiking", True), ("sew", False), ("membrane", True), ("plain", False)]
)
def test_zero_init_where_it_can_learn(kind, starts_as_shortcut):
    network = create_model("resnet20_modified", residual=kind, width=0.1, neuron=NEURON).network
    for name in network.blocks():
        assert bool(network.get_submodule(name).norm2.weight.any()) is not starts_as_shortcut


def test_width_multiplies_every_layer_but_the_first_input_and_the_last_output():
    network = create_model("resnet20", width=2.5, neuron=NEURON).network
    assert [network.stem.conv1.out_channels, network.layer2[0].conv1.out_channels] == [40, 80]
    assert (network.fc.in_features, network.fc.out_features) == (160, 10)
    assert create_model("resnet20", width=0.01, neuron=NEURON).network.fc.in_features == 1


def test_fifty_six_plain_layers_step_without_nan():
    torch.manual_seed(0)
    model = create_model("resnet56", residual="plain", num_steps=2, width=0.25, neuron=NEURON)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 55  # and one linear layer
    assert len(model.network.blocks()) == 27
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 3, 16, 16), torch.randint(10, (8,))
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_changes_nothing_but_the_layout(kind):
    torch.manual_seed(0)
    model = create_model("resnet20", residual=kind, num_steps=2, width=0.25, neuron=NEURON).double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.double)
    expected = model(x)
    layouts = []
    model.network.layer3.register_forward_hook(
        lambda module, args, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected)
    assert layouts == [True]


def test_bfloat16_autocast():
    torch.manual_seed(0)
    model = create_model("resnet20", num_steps=2, width=0.25, neuron=NEURON)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(2, 3, 16, 16))
    assert logits.dtype is torch.float32
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
