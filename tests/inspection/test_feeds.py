"""Which layers feed which neurons; what is scaled by it is tested in `tests/initialization/test_scaling.py`."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from shortback.inspection.feeds import Feeds
from tests.health.foreign import MultiStep, Spike


class Block(nn.Module):
    """Two layers each before a neuron, a shortcut with a layer of its own, and one neuron module for all."""

    def __init__(self, width, *, has_shortcut):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(width, width, 1) if has_shortcut else nn.Identity()
        self.fires = MultiStep(0)

    def forward(self, x):
        y = self.fires(self.norm1(self.conv1(x)))
        return self.fires(self.norm2(self.conv2(y)) + self.shortcut(x))


def feeds_of(model, x, *, neurons, layers=(nn.Conv2d, nn.BatchNorm2d, nn.Linear)):
    return Feeds.of(
        model,
        x,
        layers=[m for m in model.modules() if isinstance(m, layers)],
        neurons=[m for m in model.modules() if isinstance(m, neurons)],
    )


def named(model, layers):
    names = {module: name for name, module in model.named_modules()}
    return [names[layer] for layer in layers]


@pytest.mark.parametrize("frozen", [False, True])
def test_blocks_with_a_shortcut(frozen):
    model = nn.Sequential(Block(2, has_shortcut=True), Block(2, has_shortcut=False)).requires_grad_(not frozen)
    feeds = feeds_of(model, torch.randn(3, 2, 4, 4), neurons=MultiStep)
    calls = [[named(model, layers) for layers in feeds.by_call[block.fires]] for block in model]
    assert calls == [[["0.norm1"], ["0.norm2", "0.shortcut"]], [["1.norm1"], ["1.norm2"]]]
    second = feeds.by_call[model[0].fires][1]
    assert set(named(model, feeds.entries(second))) == {"0.conv2", "0.shortcut"}
    assert feeds.sources[model[1].conv1] == {model[0].fires}
    assert feeds.sources[model[0].conv1] == set()


class Holding(nn.Module):
    """A neuron with a norm in front of it, inside."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

    def forward(self, x):
        return Spike.apply(self.norm(self.conv(x)) - 1)


def test_a_neuron_that_holds_layers_is_fed_by_the_last():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Holding())
    feeds = feeds_of(model, torch.randn(3, 1, 4, 4), neurons=Holding)
    assert [named(model, layers) for layers in feeds.by_call[model[1]]] == [["1.norm"]]
    assert named(model, feeds.entries(feeds.by_call[model[1]][0])) == ["0"]


def test_an_encoder_is_fed_by_no_layer():
    model = nn.Sequential(MultiStep(0), nn.Linear(4, 4))
    assert feeds_of(model, torch.randn(3, 4), neurons=MultiStep).by_call == {model[0]: [()]}


def test_nothing_is_kept_for_a_backward_pass():
    """PyTorch asks the innermost hooks what to keep; without any in `Feeds.of`, it would ask these."""
    model, kept = nn.Sequential(nn.Linear(4, 4), MultiStep(0), nn.Linear(4, 4)), []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        feeds = feeds_of(model, torch.randn(3, 4), neurons=MultiStep)
    assert feeds.by_call == {model[1]: [(model[0],)]}
    assert not kept
