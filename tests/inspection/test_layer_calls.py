import pytest
import torch
from torch import nn

from shortback.inspection.layer_calls import LayerCalls


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


def test_counts_the_layers_with_weights_and_says_which_came_last():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.LayerNorm(4), nn.Flatten())
    with LayerCalls.of(model) as calls:
        model(torch.randn(2, 4))
    assert calls.counts == {shared: 2, model[3]: 1}
    assert calls.last is model[3]
    assert calls.latest() == [model[3], shared]
    with LayerCalls.of(model) as calls:
        model(torch.randn(2, 4))
        shared(torch.randn(2, 4))
    assert calls.latest() == [shared, model[3]]


def test_a_hook_that_was_there_sees_what_came_before_its_own_call():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    seen = []
    with LayerCalls.of(model) as calls:
        model[0].register_forward_hook(lambda *_: seen.append(calls.last))
        model.register_forward_hook(lambda *_: seen.append(calls.last))
        model(torch.randn(2, 4))
    assert seen == [model[0], model[1]]


def test_leaves_no_hook_behind_where_the_network_raises():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(RuntimeError), LayerCalls.of(model):
        model(torch.randn(2, 5))
    assert not hooks(model)
