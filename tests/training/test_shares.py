"""What each of several processes reads of a `DataLoader`."""

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, WeightedRandomSampler

from shortback.training.batches import SeededBatches
from shortback.training.shares import share_of


def drawn(loader, epoch, *, world_size=2, even=True, seed=3):
    """The samples of each process, by batch."""
    ranks = [share_of(loader, rank=r, world_size=world_size, even=even, seed=seed) for r in range(world_size)]
    return [[[*y.tolist()] for _, y in SeededBatches(rank, seed=r).epoch(epoch)] for r, rank in enumerate(ranks)]


def loader(number=9, **settings):
    return DataLoader([(torch.zeros(1), i) for i in range(number)], batch_size=2, **settings)


def flat(ranks):
    return sorted(sample for rank in ranks for batch in rank for sample in batch)


def test_processes_share_an_epoch_whose_order_depends_on_the_seed_and_the_epoch():
    first = drawn(loader(shuffle=True), 0)
    assert sorted(set(flat(first))) == [*range(9)]
    assert [len(batches) for batches in first] == [3, 3]  # ten samples: one is seen twice
    torch.manual_seed(99)
    assert drawn(loader(shuffle=True), 0) == first  # as in a process that goes on
    others = drawn(loader(shuffle=True), 1), drawn(loader(shuffle=True), 0, seed=4)
    assert first not in others
    assert others[0] != others[1]


@pytest.mark.parametrize("batched", [False, True])
def test_a_generator_of_ones_own_makes_no_difference_between_processes(batched):
    """All draw the same whole epoch, though each has used its generator for other things before."""

    def make(rank):
        data = [(torch.zeros(1), i) for i in range(9)]
        sampler = RandomSampler(data, generator=torch.Generator().manual_seed(rank))
        if not batched:
            return DataLoader(data, batch_size=2, sampler=sampler)
        return DataLoader(data, batch_sampler=Batched(sampler, 2, drop_last=False))

    def epoch(number):
        shared = [share_of(make(rank), rank=rank, world_size=2, even=False, seed=3) for rank in range(2)]
        return [[[*y.tolist()] for _, y in SeededBatches(s, seed=r).epoch(number)] for r, s in enumerate(shared)]

    first = epoch(0)
    assert flat(first) == [*range(9)]
    assert epoch(0) == first
    assert epoch(1) != first


class Batched(BatchSampler):
    """One of a class of its own, whose batches are shared."""


def test_what_is_counted_is_seen_once():
    assert drawn(loader(), 0, even=False) == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7]]]
    shared = [share_of(loader(), rank=r, world_size=4, even=False, seed=0) for r in range(4)]
    assert [len(s) for s in shared] == [2, 1, 1, 1]
    assert [len(s.sampler) for s in shared] == [3, 2, 2, 2]


def test_one_sample_serves_all_where_training_needs_as_many():
    assert drawn(loader(1), 0, world_size=3) == [[[0]]] * 3


def test_samplers_of_any_kind():
    weighted = loader(sampler=WeightedRandomSampler([1.0] * 9, 9))
    ranks = drawn(weighted, 0)
    assert [len(rank) for rank in ranks] == [3, 3]
    assert ranks[0] != ranks[1]
    whole = DataLoader(loader().dataset, batch_sampler=[[0, 1], [2, 3], [4, 5]])
    assert drawn(whole, 0) == [[[0, 1], [4, 5]], [[2, 3], [0, 1]]]
    single = DataLoader([(torch.zeros(2, 1), torch.tensor([i, i])) for i in range(3)], batch_size=None)
    assert drawn(single, 0, even=False) == [[[0, 0], [2, 2]], [[1, 1]]]
    shared = loader(sampler=DistributedSampler(range(9), num_replicas=2, rank=0))
    assert share_of(shared, rank=0, world_size=2, even=True, seed=0) is shared


def test_the_loader_itself_stays_as_it_is():
    own = loader()
    share_of(own, rank=1, world_size=2, even=True, seed=0)
    assert [y.tolist() for _, y in own] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]


def test_batches_of_a_sampler_of_ones_own_are_shared_by_sample():
    data = [(torch.zeros(1), i) for i in range(9)]
    found = drawn(DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 4, drop_last=False)), 0)
    assert sorted(set(flat(found))) == [*range(9)]
    assert [[len(batch) for batch in rank] for rank in found] == [[4, 1], [4, 1]]
    own = BatchSampler(DistributedSampler(data, num_replicas=2, rank=1), 4, drop_last=False)
    loader = DataLoader(data, batch_sampler=own)
    assert share_of(loader, rank=1, world_size=2, even=True, seed=0) is loader
