"""Words that are the same for the same thing in another process, and others for another thing."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from shortback.ablation.made_of import data_in_words, network_in_words, optimizer_in_words, settings_in_words


class Called(nn.Module):
    """Whose representation has an address in it."""

    def extra_repr(self):
        return f"at {object()}"


def network(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), Called())


def test_a_network_is_told_by_layers_shapes_and_weights():
    assert network_in_words(network()) == network_in_words(network())
    assert network_in_words(network()).startswith("Sequential, 33 numbers, digest ")  # 12 + 4, 4 * 4 + 1
    others = [network(width=5), network(seed=1), network().double(), nn.Sequential(*network(), nn.ReLU())]
    assert len({network_in_words(one) for one in [network(), *others]}) == 5


def test_another_rounding_of_the_weights_is_the_same_network():
    rounded = network()
    with torch.no_grad():
        rounded[0].weight.mul_(1 + 1e-7)
    assert network_in_words(rounded) == network_in_words(network())


def test_layers_without_shapes_yet_are_told_by_name():
    assert network_in_words(nn.LazyLinear(3)).startswith("LazyLinear, 0 numbers")


class Endless(IterableDataset):
    def __iter__(self):
        raise AssertionError("nothing is to be drawn")


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (DataLoader(TensorDataset(torch.zeros(10, 2)), batch_size=4), "3 batches, 10 samples"),
        ([1, 2], "2 batches"),
        (DataLoader(Endless()), "DataLoader"),
        (None, "none"),
    ],
)
def test_data_are_counted_and_not_drawn(loader, words):
    assert data_in_words(loader) == words
    shape = "the first batch torch.float32 [4, 2]"
    assert data_in_words([1, 2], torch.zeros(4, 2)) == f"2 batches, {shape}"


def test_an_optimizer_is_its_class_and_its_settings():
    weight = nn.Parameter(torch.zeros(2))
    plain = functools.partial(torch.optim.SGD, [weight], lr=0.1)
    assert optimizer_in_words(plain()) == optimizer_in_words(plain())
    assert optimizer_in_words(plain()).startswith("SGD {'lr': 0.1")
    grouped = torch.optim.SGD([{"params": [weight], "lr": 0.2}], lr=0.1)
    others = [plain(momentum=0.9), torch.optim.Adam([weight], lr=0.1), grouped]
    assert len({optimizer_in_words(one) for one in [plain(), *others, None]}) == 5


def test_settings_that_are_other_objects_in_every_process_are_left_out():
    assert settings_in_words({"lr": 0.1, "loss": lambda x: x, "at": "blocks"}) == {"lr": "0.1", "at": "'blocks'"}
