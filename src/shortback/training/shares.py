"""A `DataLoader` for one of several processes: each reads its share of an epoch that all draw alike."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler

from shortback.data.seeding import derive_seed
from shortback.training.draws import Draws


class ShareSampler(Sampler):
    """Every so many-th of what another sampler draws, in an order that depends on the seed and the epoch alone.

    Args:
        drawn: the sampler of the whole epoch.
        rank: of this process, among `world_size`.
        even: whether all get equally many, for which some of the first are drawn twice. Training needs that, since
            processes wait for each other at every step; what is counted must not have it.
        seed: of the draws, the same in all processes.
    """

    def __init__(self, drawn: Any, *, rank: int, world_size: int, even: bool, seed: int) -> None:
        self.drawn, self.rank, self.world_size, self.even, self.seed = drawn, rank, world_size, even, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        with Draws(self.drawn, seed=derive_seed(self.seed, self.epoch)).drawing():
            drawn = list(self.drawn)
        if self.even:
            drawn += [drawn[index % len(drawn)] for index in range(-len(drawn) % self.world_size)]
        return iter(drawn[self.rank :: self.world_size])

    def __len__(self) -> int:
        missing = self.world_size - 1 if self.even else self.world_size - 1 - self.rank
        return (len(self.drawn) + missing) // self.world_size


def share_of(loader: DataLoader, *, rank: int, world_size: int, even: bool, seed: int) -> DataLoader:
    """A loader of the share of one process, in batches of the size that `loader` has.

    What is shared already, and what has no order to be shared, is returned as it is.
    """
    if isinstance(loader.dataset, IterableDataset) or isinstance(loader.sampler, DistributedSampler):
        return loader

    def share(drawn: Any) -> ShareSampler:
        return ShareSampler(drawn, rank=rank, world_size=world_size, even=even, seed=seed)

    # By its dictionary: a loader does not let these be set, and one of a class of its own may not be built anew.
    shared = copy.copy(loader)
    if loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler:
        sampler = share(loader.sampler)
        shared.__dict__["sampler"] = sampler
        if loader.batch_sampler is not None:
            assert loader.batch_size is not None
            shared.__dict__["batch_sampler"] = BatchSampler(sampler, loader.batch_size, loader.drop_last)
    else:
        shared.__dict__["batch_sampler"] = shared.__dict__["sampler"] = share(loader.batch_sampler)
    return shared
