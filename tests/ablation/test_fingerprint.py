"""Words that are the same for the same thing in another process, and others for another thing."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import shortback as sb
from shortback.ablation.fingerprint import (
    data_in_words,
    differing_keys,
    irreproducible_names,
    network_in_words,
    optimizer_in_words,
    settings_in_words,
)


class Called(nn.Module):
    """Whose representation has an address in it."""

    def extra_repr(self):
        return f"at {object()}"


def network(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), Called())


def words(net):
    return str(network_in_words(net))


def test_a_network_is_told_by_layers_shapes_and_weights():
    assert words(network()) == words(network())
    assert network_in_words(network())["network"] == "Sequential, 33 numbers"  # 12 + 4, 4 * 4 + 1
    others = [network(width=5), network(seed=1), network().double(), nn.Sequential(*network(), nn.ReLU())]
    assert len({words(one) for one in [network(), *others]}) == 5


def test_another_rounding_of_the_weights_is_the_same_network():
    rounded = network()
    with torch.no_grad():
        rounded[0].weight.mul_(1 + 1e-7)
    assert words(rounded) == words(network())


def test_plain_numbers_of_modules_are_told_by_class_and_in_a_row():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5), nn.Conv2d(1, 2, 3), nn.Dropout(0.1), sb.LIF(2, threshold=0.3))
    found = network_in_words(net)
    assert found["network.Dropout.p"] == "0.5 (2 times), 0.1"
    assert found["network.Conv2d.kernel_size"] == "[3, 3]"
    assert (found["network.LIF.dynamics.threshold"], found["network.LIF.dynamics.reset"]) == ("0.3", "hard")
    assert found["network.LIF.dynamics.surrogate"] == "Triangular"
    assert not [key for key in found if "training" in key or "._" in key]


@pytest.mark.parametrize("kind", ["bool", "uint8", "uint16", "int64", "bfloat16", "complex64", "float8_e4m3fn"])
def test_tensors_of_every_kind_are_told_by_their_values(kind):
    dtype = getattr(torch, kind)
    one, other = network(), network()
    one.register_buffer("mask", torch.ones(3).to(dtype))
    other.register_buffer("mask", torch.tensor([1.0, 1.0, 0.0]).to(dtype))
    one, other = network_in_words(one), network_in_words(other)
    assert {key for key in one if one[key] != other[key]} == {"network.values"}


def test_tensors_without_values_are_told_by_their_shapes():
    assert network_in_words(nn.Linear(2, 3, device="meta"))["network"] == "Linear, 9 numbers"


class Drawn(nn.Module):
    """One layer of PyTorch's seed, one of NumPy's, and a number of Python's."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.p = random.random()
        nn.init.constant_(self.b.weight, float(np.random.randn()))


def test_what_is_drawn_by_other_generators_is_named_and_these_are_left_alone():
    torch.manual_seed(3)
    model = Drawn()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    names = irreproducible_names(Drawn, model, seed=3)
    assert names == ["Drawn.p", "b.weight"]
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    torch.manual_seed(3)
    assert network_in_words(Drawn(), without=names) == network_in_words(model, without=names)
    assert network_in_words(Drawn(), without=names) != network_in_words(model, without=names)  # of another seed
    assert irreproducible_names(network, network(), seed=0) == []


def test_layers_without_shapes_yet_are_told_by_name():
    assert network_in_words(nn.LazyLinear(3))["network"] == "LazyLinear, 0 numbers"


def test_what_another_version_knows_more_of_is_not_compared():
    before = {"lr": "0.1", **network_in_words(network()), **optimizer_in_words(optimizer())}
    assert differing_keys({**before, "network.Linear.fast": "true", "optimizer.decoupled": "False"}, before) == []
    assert differing_keys(before, {**before, "network.Linear.fast": "true", "optimizer.decoupled": "False"}) == []
    assert differing_keys({**before, "optimizer.lr": "0.2", "lr": "0.3"}, before) == ["lr", "optimizer.lr"]
    assert differing_keys({**before, "loss": "TET()"}, before) == ["loss"]
    first = {
        "lr": "0.1",
        "network": "Sequential, 33 numbers, digest 0123456789ab",
        "optimizer": "SGD {'lr': 0.1, 'momentum': 0}, groups [{'lr': 0.2}]",
    }
    assert differing_keys(before, first) == []
    assert differing_keys(before, {**first, "network": "Sequential, 34 numbers, digest 0123456789ab"}) == ["network"]
    assert differing_keys(before, {**first, "optimizer": "the usual one"}) == ["optimizer"]


class Endless(IterableDataset):
    def __iter__(self):
        raise AssertionError("nothing is to be drawn")


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        (DataLoader(TensorDataset(torch.zeros(10, 2)), batch_size=4), "3 batches, 10 samples"),
        ([1, 2], "2 batches"),
        (DataLoader(Endless()), "DataLoader"),
        (None, "none"),
    ],
)
def test_data_are_counted_and_not_drawn(loader, told):
    assert data_in_words(loader) == told
    shape = "the first batch torch.float32 [4, 2]"
    assert data_in_words([1, 2], torch.zeros(4, 2)) == f"2 batches, {shape}"


def optimizer(**settings):
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], **{"lr": 0.1, **settings})


def test_an_optimizer_is_its_class_and_its_settings():
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    assert optimizer_in_words(optimizer()) == optimizer_in_words(optimizer())
    assert optimizer_in_words(optimizer())["optimizer"] == "SGD"
    groups = torch.optim.SGD([{"params": [each]} for each in weights], lr=0.1)
    groups.param_groups[2]["lr"] = 0.2
    assert optimizer_in_words(groups)["optimizer.lr"] == "0.1 (2 times), 0.2"
    others = [optimizer(momentum=0.9), torch.optim.Adam(weights, lr=0.1), groups, None]
    assert len({str(optimizer_in_words(one)) for one in [optimizer(), *others]}) == 5


def test_settings_that_are_other_objects_in_every_process_are_left_out():
    assert settings_in_words({"lr": 0.1, "loss": lambda x: x, "at": "blocks"}) == {"lr": "0.1", "at": "'blocks'"}
