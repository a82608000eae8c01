import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from shortback.data import ArrayImages, BatchLoader
from shortback.training import Batches, SeededBatches


def test_the_order_is_that_of_the_seed_and_the_epoch():
    data = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20))
    batches = SeededBatches(DataLoader(data, batch_size=4, shuffle=True), seed=1)
    assert isinstance(batches, Batches)
    random = torch.get_rng_state()
    first = [y.tolist() for _, y in batches.epoch(0)]
    assert torch.equal(torch.get_rng_state(), random)
    torch.rand(5)
    assert [y.tolist() for _, y in batches.epoch(0)] == first
    assert [y.tolist() for _, y in batches.epoch(0, start=3)] == first[3:]
    assert [y.tolist() for _, y in batches.epoch(1)] != first
    assert sorted(label for batch in first for label in batch) == list(range(20))


def test_our_own_loader_is_taken_as_it_is():
    images = ArrayImages(torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    loader = BatchLoader(
        images, transform=None, batch_size=4, mean=[0.5], std=[0.5], seed=0, shuffle=True, drop_last=True
    )
    assert isinstance(loader, Batches)


class Drawn(Dataset):
    """Samples that are drawn anew at every look."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor(float(self.draw())), index


def read(loader, epoch, *, before=0):
    """What an epoch gives to a training that goes on after some others."""
    batches = SeededBatches(loader, seed=1)
    for number in range(before):
        list(batches.epoch(number))
    return [(x.tolist(), y.tolist()) for x, y in batches.epoch(epoch)]


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.random, np.random.rand], ids=["torch", "py", "np"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"generator": 3},
        {"num_workers": 1},
        {"num_workers": 1, "persistent_workers": True},
        {"num_workers": 1, "generator": 3},
    ],
    ids=["plain", "own-generator", "workers", "persistent", "workers-own-generator"],
)
def test_a_training_that_goes_on_sees_what_it_would_have_seen(draw, settings):
    def make():
        own = {"generator": torch.Generator().manual_seed(3)} if "generator" in settings else {}
        return DataLoader(Drawn(draw), batch_size=2, shuffle=True, **{**settings, **own})

    used = make()
    whole = read(used, 2, before=2)
    torch.rand(3), random.random(), np.random.rand()
    assert read(make(), 2) == whole
    assert read(used, 2) == whole
    assert read(make(), 1) != whole


def test_a_generator_of_ones_own_is_left_as_it_was():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    list(SeededBatches(DataLoader(range_pairs(8), batch_size=2, shuffle=True, generator=generator)).epoch(0))
    assert torch.equal(generator.get_state(), before)


def range_pairs(number):
    return TensorDataset(torch.arange(float(number))[:, None], torch.arange(number))


def test_workers_that_persist_are_told_of_and_left_alone(caplog):
    loader = DataLoader(range_pairs(4), batch_size=2, num_workers=1, persistent_workers=True)
    batches = SeededBatches(loader)
    assert "persistent_workers=True: workers are started anew every epoch" in caplog.text
    assert len(list(batches.epoch(0))) == 2
    assert loader.persistent_workers
    assert loader._iterator is None
