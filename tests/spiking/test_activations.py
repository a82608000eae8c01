"""Activations called as functions are found in the source, by their line; see also test_functions.py."""

import functools
import re
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers.activations import hard_sigmoid
from torch import Tensor, nn

from shortback.neurons import LIF
from shortback.spiking.spikify import spikify

NEURON = functools.partial(LIF, backend="reference", threshold=0.5)


def helper(x: Tensor) -> Tensor:
    return F.relu(x)  # in a function


def decorated(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


class Calls(nn.Module):
    """Base of the networks below: a module that would be replaced, and much that would not."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.function = lambda x: F.elu(x) + 1  # in a lambda
        self.blocks = nn.ModuleList([nn.Sequential()])


class ByAlias(Calls):
    def forward(self, x):
        return F.relu(x)  # here


class AsAnArgument(Calls):
    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(F.softplus, x)  # here


class ByLambda(Calls):
    def forward(self, x):
        return self.function(x)


class ByDecorated(Calls):
    @decorated
    def forward(self, x):
        return F.hardswish(x)  # here


class BySuper(ByDecorated):
    def forward(self, x):
        return super().forward(x)


class ByOwnMethod(Calls):
    def relu(self):
        return nn.ReLU()

    def forward(self, x):
        return self.relu()(x)  # here


class ByHelper(Calls):
    def forward(self, x):
        return helper(x)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (AsAnArgument, "return torch.utils.checkpoint.checkpoint(F.softplus, x)  # here"),
        (ByLambda, "self.function = lambda x: F.elu(x) + 1  # in a lambda"),
        (BySuper, "return F.hardswish(x)  # here"),
        (ByDecorated, "return F.hardswish(x)  # here"),
        (ByOwnMethod, "return self.relu()(x)  # here"),
        (ByHelper, "return F.relu(x)  # in a function"),
    ],
)
def test_functions_that_no_module_can_replace_are_refused_by_their_line(kind, line):
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sequential(kind(), kind()))
    with pytest.raises(ValueError, match="Make each a module in __init__") as raised:
        spikify(ann, num_steps=2, neuron=NEURON)
    found = re.search(rf"1\.0 \({kind.__name__}\) and 1 more, (.+):(\d+): (.*)\n", str(raised.value))
    assert found is not None, str(raised.value)
    with open(__file__) as source:
        assert source.readlines()[int(found[2]) - 1].strip() == line
    assert found[1] == __file__
    assert found[3] == line


class Innocent(Calls):
    """Looks like the above, and calls modules."""

    def forward(self, x):
        gelu = self.relu  # a local name hides the global one
        x = gelu(self.relu(x))
        for block in self.blocks:
            x = block.relu(x) if hasattr(block, "relu") else x
        return hard_sigmoid(F.dropout(self.relu_twice(x)))

    def relu_twice(self, x):
        return self.relu(self.relu(x))


def test_modules_and_gates_are_not_taken_for_functions():
    assert isinstance(spikify(Innocent(), num_steps=2, neuron=NEURON).network.relu, LIF)


def test_every_place_is_named_at_once():
    ann = nn.Sequential(ByHelper(), ByLambda(), nn.Sequential(ByHelper(), ByAlias()))
    with pytest.raises(ValueError, match="as functions") as raised:
        spikify(ann, num_steps=2)
    lines = str(raised.value).splitlines()[1:-1]
    assert [line.split(",")[0].strip() for line in lines] == ["0 (ByHelper) and 1 more", "1 (ByLambda)"]


def test_code_without_source_is_said_not_to_be_read(caplog):
    namespace = {"nn": nn}
    exec("class Typed(nn.Sequential):\n    def forward(self, x): return super().forward(x)", namespace)
    spikify(namespace["Typed"](nn.ReLU()), num_steps=2, neuron=NEURON)  # type: ignore[operator]
    assert "no source of Typed.forward: activations called as functions there are not replaced" in caplog.messages


def test_networks_of_other_inputs_are_refused_at_once():
    volumes = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Conv2d(1, 1, 1))
    words = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.ReLU())
    for net, kind in ((volumes, "Conv3d"), (words, "Embedding")):
        with pytest.raises(ValueError, match=f"networks of images.*0 is a {kind}"):
            spikify(net, num_steps=2)
    assert spikify(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(2), nn.Conv1d(2, 2, 1)), num_steps=2)


TABLE = {"relu": F.relu}


class ByTable(Calls):
    def forward(self, x):
        return TABLE["relu"](x)


class ByProperty(Calls):
    @property
    def chosen(self):
        return F.relu

    def forward(self, x):
        return self.chosen(x)


class ByGetattr(Calls):
    def forward(self, x):
        return getattr(F, "relu")(x)  # noqa: B009


class ByDefault(Calls):
    def forward(self, x, act=F.relu):
        return act(x)


@pytest.mark.parametrize("network", [ByTable, ByProperty, ByGetattr, ByDefault])
def test_what_reading_the_source_does_not_find_a_trace_does(network):
    with pytest.raises(ValueError, match=rf"(?s)cannot replace .*{re.escape(__file__)}:\d+"):
        spikify(network(), num_steps=2, neuron=NEURON)


class MemoryEfficientSwish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


def test_modules_that_are_only_named_like_activations_are_told_of(caplog):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), MemoryEfficientSwish())
    spikify(network, num_steps=2, neuron=NEURON)
    assert "left 2 (MemoryEfficientSwish) as they are" in caplog.text


class SpikingReLU(nn.Module):
    """A neuron of one's own, which computes with what is an activation elsewhere."""

    def __init__(self, num_steps):
        super().__init__()
        self.levels = 4

    def forward(self, x):
        return (F.relu6(x) * self.levels).floor() / self.levels


def test_what_neurons_compute_is_theirs(caplog):
    for factory in (SpikingReLU, lambda steps: nn.Sequential(SpikingReLU(steps))):
        spikify(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten()), num_steps=2, neuron=factory)
    assert "named like activations" not in caplog.text


def test_scripted_networks_are_refused():
    with warnings.catch_warnings(action="ignore"):  # it is deprecated
        scripted = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"before torch.jit.script"):
        spikify(scripted, num_steps=2)


class DropsTheResult(nn.Module):
    def __init__(self, *, inplace):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=inplace), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x)
        self.act(x)
        return self.fc(x.mean((2, 3)))


def test_an_activation_that_only_changes_its_input_is_refused():
    with pytest.raises(ValueError, match=r"act, whose result DropsTheResult does not use.*x = self\.act\(x\)"):
        spikify(DropsTheResult(inplace=True), num_steps=2)
    spikify(DropsTheResult(inplace=False), num_steps=2)  # without effect before, too


class CallsAHelper(nn.Module):
    """A function without arguments whose only local is captured by an inner one."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(x)).mean((2, 3)) * _captured()


def _captured():
    k = 2

    def inner():
        return k

    return inner()


def test_a_helper_without_arguments_is_read():
    spikify(CallsAHelper(), num_steps=2)
