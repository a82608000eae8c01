"""Activations that methods call as functions become modules, and everything else in the methods stays."""

import copy
import functools
import inspect
import io
import traceback
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.functional import gelu

import shortback as sb
from shortback.neurons import LIF
from shortback.spiking.functions import functions_to_modules
from shortback.spiking.spikify import spikify

NEURON = functools.partial(LIF, backend="reference", threshold=0.5)


class Relu(nn.Module):
    """In place of a neuron: with it, a network of ReLUs is what it was."""

    def __init__(self, num_steps):
        super().__init__()

    def forward(self, x):
        return torch.clamp(x, min=0)


class Calls(nn.Module):
    """Base of the networks below, with much that would be called."""

    squash = staticmethod(F.relu)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.act = F.relu
        self.partial = functools.partial(F.relu, inplace=False)
        self.relu = nn.ReLU()

    def inherited(self, x):
        return torch.relu(self.conv(x))

    def __private(self, x):
        return self.conv(x)

    def of_private(self, x):
        return F.relu(self.__private(x))


class ByAlias(Calls):
    def forward(self, x):
        return F.relu(self.conv(x), inplace=True)


class ByPath(Calls):
    def forward(self, x):
        return torch.nn.functional.relu(input=self.conv(x))


class InPlace(Calls):
    def forward(self, x):
        return torch.relu_(self.conv(x))


class ByTensorMethod(Calls):
    def forward(self, x):
        return self.conv(x).relu()


class ByModuleMadeOnTheSpot(Calls):
    def forward(self, x):
        return nn.ReLU()(self.conv(x))


class ByAttribute(Calls):
    def forward(self, x):
        return self.act(self.conv(x))


class ByPartial(Calls):
    def forward(self, x):
        return self.partial(self.conv(x))


class ByStaticMethod(Calls):
    def forward(self, x):
        return self.squash(self.conv(x))


class ByMethod(Calls):
    def forward(self, x):
        return self.inherited(x)


class OfPrivate(Calls):
    def forward(self, x):
        return self.of_private(x)


class OneInTheOther(Calls):
    def forward(self, x):
        return F.relu(self.conv(F.relu(x)[:, :2]))


class InALoop(Calls):
    def forward(self, x):
        for _ in range(2):
            x = F.relu(self.conv(x))[:, :2]
        return x


class InALambda(Calls):
    def forward(self, x):
        twice = lambda y: F.relu(self.conv(y))  # noqa: E731
        return [twice(part) for part in (x, -x)][1]


class WithBranches(Calls):
    """Control flow that a symbolic trace would lose."""

    def forward(self, x, mask=None, *, scale: float = 2.0):
        if self.training:
            x = x * scale
        if mask is not None or x.shape[0] > 3:
            x = x + 1
        return F.relu(self.conv(x))


KINDS = [
    ByAlias,
    ByPath,
    InPlace,
    ByTensorMethod,
    ByModuleMadeOnTheSpot,
    ByAttribute,
    ByPartial,
    ByStaticMethod,
    ByMethod,
    OfPrivate,
    OneInTheOther,
    InALoop,
    InALambda,
    WithBranches,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_what_it_did(kind, training):
    torch.manual_seed(0)
    ann = nn.Sequential(kind(), nn.Flatten(), nn.LazyLinear(3)).train(training)
    x = torch.randn(5, 2, 6, 6)
    expected = ann(x)
    model = spikify(ann, num_steps=1, neuron=Relu)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    new = model.network[0]
    assert any(isinstance(module, Relu) for name, module in new.named_modules() if name != "relu")
    assert isinstance(new, kind)
    assert list(model.network.state_dict()) == list(ann.state_dict())
    assert type(ann[0]) is kind  # as it was


def test_every_call_has_a_neuron_of_its_own_under_a_free_name():
    class Two(Calls):
        def forward(self, x):
            return gelu(F.relu(self.conv(x)) + F.silu(self.relu(x)).mean())

    model = spikify(nn.Sequential(Two()), num_steps=2, neuron=NEURON)
    names = [name for name, module in model.network[0].named_children() if isinstance(module, LIF)]
    assert names == ["relu", "relu_1", "silu", "gelu"]


def test_one_class_for_modules_alike_and_tracebacks_with_their_lines():
    class Fails(Calls):
        def forward(self, x):
            y = F.relu(self.conv(x))
            raise ArithmeticError(y.shape)

    network = nn.Sequential(Fails(), Fails(), ByAlias())
    functions_to_modules(network)
    assert type(network[0]) is type(network[1])
    assert repr(network[0]).startswith("Fails(")
    with pytest.raises(ArithmeticError) as raised:
        network[0](torch.zeros(1, 2, 3, 3))
    assert traceback.extract_tb(raised.value.__traceback__)[-1].line == "raise ArithmeticError(y.shape)"


def test_instances_that_differ_in_a_function_are_told_apart():
    first, second = ByAttribute(), ByAttribute()
    second.act = torch.tanh
    network = nn.Sequential(first, second)
    functions_to_modules(network)
    assert type(second) is ByAttribute
    x = torch.randn(2, 2, 4, 4)
    torch.testing.assert_close(second(x), torch.tanh(second.conv(x)))
    torch.testing.assert_close(first(x), first.conv(x).clamp(min=0))


def through_pickle(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
def test_copies_and_pickles(copied):
    model = spikify(nn.Sequential(WithBranches(), nn.Flatten(), nn.Linear(16, 3)), num_steps=2, neuron=NEURON)
    x = torch.randn(4, 2, 2, 2)
    again = copied(model.network)
    assert type(again[0]) is type(model.network[0])
    again[0].conv.weight.data.zero_()  # its own
    again[0].conv.bias.data.zero_()
    assert again[0](torch.cat([x, x])).abs().max() == 0
    assert model.network[0](torch.cat([x, x])).abs().max() > 0


def test_decorators_that_keep_the_function_and_free_variables():
    offset = 3.0

    def mark(function):
        function.marked = True
        return function

    class Marked(Calls):
        @mark
        def forward(self, x):
            assert super().__class__ is not None
            return F.relu(self.conv(x) + offset)

    ann = nn.Sequential(Marked())
    x = torch.randn(2, 2, 4, 4)
    expected = ann(x)
    functions_to_modules(ann)
    torch.testing.assert_close(ann(x), expected)
    assert ann[0].forward.marked
    assert inspect.signature(ann[0].forward) == inspect.signature(Marked().forward)


def test_made_spiking_twice_nothing_is_put_in_again():
    once = spikify(nn.Sequential(ByAlias(), nn.ReLU()), num_steps=2, neuron=NEURON).network
    once[1] = nn.ReLU()
    assert not hasattr(spikify(once, num_steps=2, neuron=NEURON).network[0], "relu_2")


def test_compiled_and_exported():
    torch.manual_seed(0)
    network = nn.Sequential(WithBranches(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    functions_to_modules(network)
    x = torch.randn(2, 2, 6, 6)
    expected = network(x)
    program = torch.export.export(network, (x,))
    torch.testing.assert_close(program.module()(x), expected)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)


def test_weights_of_a_function_are_not_left_without_a_gradient():
    class Weighted(Calls):
        def forward(self, x):
            return F.prelu(self.conv(x), torch.full((1,), 0.1))

    with pytest.raises(ValueError, match="calls as functions"):
        spikify(nn.Sequential(Weighted()), num_steps=2)


def test_a_result_that_is_dropped_is_refused():
    class Drops(Calls):
        def forward(self, x):
            x = self.conv(x)
            F.relu_(x)
            return x.mean((2, 3))

    with pytest.raises(ValueError, match="whose result Drops does not use"):
        spikify(Drops(), num_steps=2)


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "inception_v3"])
def test_networks_of_torchvision(name):
    torch.manual_seed(0)
    settings = {} if name == "densenet121" else {"init_weights": False, "aux_logits": False}
    ann = torchvision.models.get_model(name, num_classes=4, **settings).eval()
    x = torch.randn(1, 3, 80, 80)
    with torch.no_grad():
        torch.testing.assert_close(spikify(ann, num_steps=1, neuron=Relu)(x), ann(x), rtol=0, atol=0)


def test_branches_and_gradients_of_a_network_as_in_a_tutorial():
    class Tutorial(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
            self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.relu(self.conv2(x)).mean((2, 3))
            return self.fc2(F.relu(self.fc1(x)))

    torch.manual_seed(0)
    x, y = torch.rand(4, 1, 12, 12), torch.tensor([0, 1, 2, 0])
    model = spikify(Tutorial(), num_steps=3, neuron=NEURON)
    torch.testing.assert_close(model(x), model(x.expand(3, *x.shape)))
    net = sb.attach(model, at=["relu", "relu_1"], sample=x)
    sb.shortcut_loss(net.train()(x), y, coefficient=0.5).total.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert sb.strip(net) is model


def test_a_transformer_layer_of_torch():
    class Tokens(nn.Module):
        def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(4, 1, 8, activation=activation, batch_first=True, dropout=0)
            self.conv, self.layer, self.fc = nn.Conv2d(2, 4, 3), layer, nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.layer(self.conv(x).flatten(2).transpose(1, 2)).mean(1))

    x = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = []
    for activation in (F.relu, nn.ReLU()):
        torch.manual_seed(0)
        model = spikify(Tokens(activation), num_steps=2, neuron=NEURON).eval()
        outputs.append(model(x).detach())
        with torch.no_grad():  # where torch has a fused path for the ReLU that was replaced
            torch.testing.assert_close(model(x), outputs[-1])
    torch.testing.assert_close(*outputs)
