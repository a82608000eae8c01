import copy
import random

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    TensorDataset,
)

from shortback.data import ArrayImages, BatchLoader
from shortback.errors import UserError
from shortback.training import Batches, SeededBatches
from shortback.training._fit import loader_of
from shortback.training.batches import _warn_once, split_batch, warn_if_short
from shortback.training.shares import share_of


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


@pytest.fixture
def not_told():
    """Nothing was said before in this process."""
    _warn_once.cache_clear()


def test_workers_that_persist_are_told_of_and_left_alone(caplog, not_told):
    loader = DataLoader(range_pairs(4), batch_size=2, num_workers=1, persistent_workers=True)
    batches = SeededBatches(loader)
    SeededBatches(loader)
    assert caplog.text.count("persistent_workers=True: workers are restarted every epoch") == 1
    assert len(list(batches.epoch(0))) == 2
    assert loader.persistent_workers
    assert loader._iterator is None


def test_workers_of_a_loader_in_another_are_told_of_as_they_are(caplog, not_told):
    """The one around does not start them, so that nothing it is told makes them new."""
    inner = DataLoader(range_pairs(4), batch_size=2, num_workers=1, persistent_workers=True)
    around = Fabric(accelerator="cpu", devices=1).setup_dataloaders(inner)
    for _ in range(2):
        assert SeededBatches(around).loader is around
    assert caplog.text.count("the workers of a _FabricDataLoader continue from their earlier draws") == 1
    assert "restarted" not in caplog.text


class Rank:
    """What a loader is told of a process, of two."""

    world_size = 2

    def __init__(self, rank):
        self.global_rank = rank


class Divided(IterableDataset):
    """Shuffles alike in all processes, and gives every second number to each."""

    def __init__(self, rank, how):
        self.rank, self.how, self.generator = rank, how, torch.Generator().manual_seed(5)

    def __len__(self):
        return 4

    def __iter__(self):
        order = list(range(8))
        if self.how == "own":
            order = torch.randperm(8, generator=self.generator).tolist()
        elif self.how == "py":
            random.shuffle(order)
        else:
            np.random.shuffle(order)
        return ((torch.zeros(1), torch.tensor(i)) for i in order[self.rank :: 2])


class ByRank:
    """No `DataLoader`: draws its batches, seeded with the number of the process."""

    def __init__(self, rank, how):
        self.how, self.generator = how, torch.Generator().manual_seed(rank)

    def __len__(self):
        return 2

    def __iter__(self):
        for _ in range(2):
            own = {"generator": self.generator} if self.how == "own" else {}
            y = torch.randint(1000, (4,), **own) if own else torch.from_numpy(np.random.randint(0, 1000, 4))
            yield torch.zeros(4, 1), y


def in_processes(make, how, *, seeds, epoch=0):
    """What each of two processes gets, its generators seeded by its user."""
    state, np_state, found = random.getstate(), np.random.get_state(), []
    for rank in (0, 1):
        random.seed(seeds[rank]), np.random.seed(seeds[rank])
        batches = loader_of(make(rank, how), seed=1, fabric=Rank(rank), even=True)
        found.append([y.tolist() for _, y in batches.epoch(epoch)])
    random.setstate(state), np.random.set_state(np_state)
    return found


@pytest.mark.parametrize("how", ["own", "py", "np"])
def test_data_that_processes_divide_by_themselves_stay_divided(how):
    def make(rank, how):
        return DataLoader(Divided(rank, how), batch_size=4)

    for epoch in (0, 1):
        shares = in_processes(make, how, seeds=(3, 3), epoch=epoch)
        assert sorted(number for share in shares for batch in share for number in batch) == [*range(8)]


@pytest.mark.parametrize("how", ["own", "np"])
def test_processes_that_a_user_seeds_apart_draw_apart(how):
    first, second = in_processes(ByRank, how, seeds=(0, 1))
    assert first != second


def test_generators_that_were_seeded_apart_still_resume_exactly():
    """Whatever was drawn of them before, one or made anew: the methods of a comparison get the same."""
    loader = ByRank(1, "own")
    found = [[y.tolist() for _, y in loader_of(loader, seed=1, fabric=Rank(1)).epoch(epoch)] for epoch in (0, 1, 0)]
    torch.rand(3, generator=loader.generator)
    found.append([y.tolist() for _, y in loader_of(loader, seed=1, fabric=Rank(1)).epoch(0)])
    found.append([y.tolist() for _, y in loader_of(ByRank(1, "own"), seed=1, fabric=Rank(1)).epoch(0)])
    assert found[0] == found[2] == found[3] == found[4] != found[1]


@pytest.mark.parametrize("sampler", [None, DistributedSampler])
def test_data_that_a_sampler_divides_are_augmented_by_process(sampler):
    """A resumed process draws the same, whatever Python's generator does, and no other process draws that."""

    def read_by(rank):
        data = Drawn(random.random)
        own = {"sampler": sampler(data, num_replicas=2, rank=rank)} if sampler else {}
        batches = loader_of(DataLoader(data, batch_size=2, **own), seed=1, fabric=Rank(rank), even=True)
        return [x.tolist() for x, _ in batches.epoch(0)]

    assert read_by(0) == read_by(0) != read_by(1)


def test_a_loader_with_the_number_of_its_epoch_is_a_loader():
    loader = DataLoader(range_pairs(4), batch_size=2)
    loader.epoch = 3
    for fabric in (None, Rank(0)):
        assert isinstance(loader_of(copy.copy(loader), seed=0, fabric=fabric), SeededBatches)


def test_an_epoch_with_fewer_batches_than_were_said_is_told(caplog):
    batches = SeededBatches(DataLoader(range_pairs(8), batch_size=2))
    assert not warn_if_short(batches, 4)
    assert not caplog.messages
    assert warn_if_short(batches, 3)
    assert caplog.messages == [
        "DataLoader gave 3 batches in an epoch, but its len() is 4: the coefficient and the learning rate follow "
        "len(), and stop at 75 % of their course; make len() the number of batches it gives"
    ]


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(3), 0)] * 4)


def test_a_loader_without_a_length_is_refused():
    for loader, why in ((DataLoader(Endless(), batch_size=2), "'Endless' has no len"), (iter([]), "has no len")):
        with pytest.raises(UserError, match=rf"{type(loader).__name__} has no length \(.*{why}.*an epoch is; give it"):
            SeededBatches(loader)


class ByEpoch(Sampler):
    """An order that depends on the epoch that it was told, as a DistributedSampler's does."""

    def __init__(self, number=8):
        self.number, self.epoch = number, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.number

    def __iter__(self):
        return iter(torch.randperm(self.number, generator=torch.Generator().manual_seed(self.epoch)).tolist())


def orders(loader, epochs=(0, 1, 0)):
    return [[y.tolist() for _, y in loader.epoch(epoch)] for epoch in epochs]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("how", ["sampler", "batch_sampler"])
def test_every_sampler_is_told_the_epoch(how, shared):
    data = range_pairs(8)
    by_batch = {"batch_sampler": BatchSampler(ByEpoch(), 4, drop_last=False)}
    loader = DataLoader(data, **({"sampler": ByEpoch(), "batch_size": 4} if how == "sampler" else by_batch))
    if shared:
        loader = share_of(loader, rank=0, world_size=2, even=True, seed=0)
    first, second, again = orders(SeededBatches(loader))
    assert first != second
    assert first == again


def test_a_loader_longer_than_it_says_is_told_of_once(caplog):
    class Longer:
        def __len__(self):
            return 1

        def __iter__(self):
            return iter([(torch.ones(4, 3), torch.zeros(4).long()), (torch.ones(4, 3), torch.ones(4).long())])

    batches = SeededBatches(Longer())
    assert len(list(batches.epoch(0))) == len(list(batches.epoch(1))) == 1
    assert caplog.text.count("Longer gives more batches in an epoch than its len(), 1") == 1


class TimeFirst(nn.Module):
    """Reads `[T, N, F]`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(x.mean(0))


@pytest.mark.parametrize("number", [4, 6])
def test_parts_are_of_samples_also_where_there_are_as_many_steps(number):
    net, x, y = TimeFirst(), torch.randn(4, number, 6), torch.arange(number) % 3
    parts = split_batch(net, x, y, 2)
    assert [tuple(part.shape) for part, _ in parts] == [(4, number // 2, 6)] * 2
    assert torch.equal(torch.cat([part for part, _ in parts], 1), x)
    assert torch.equal(torch.cat([labels for _, labels in parts]), y)
