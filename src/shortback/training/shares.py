"""Share a `DataLoader` between processes: all draw the same epoch, and each reads its share of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler

from shortback.data.seeding import derive_seed
from shortback.training.draws import Draws, begin_epoch


class ShareSampler(Sampler):
    """Every `world_size`-th item of another sampler, whose order depends on the seed and the epoch alone.

    Args:
        drawn: the sampler of the whole epoch.
        rank: rank of this process among `world_size`.
        even: whether every process gets the same number of items, for which some of the first are repeated. Training
            needs this, as processes wait for each other at every step; an evaluation would count items twice.
        seed: seed of the draws, the same in all processes.
    """

    def __init__(self, drawn: Any, *, rank: int, world_size: int, even: bool, seed: int) -> None:
        self.drawn, self.rank, self.world_size, self.even, self.seed = drawn, rank, world_size, even, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that determines the order of the next iteration, here and in the sampler of the whole."""
        self.epoch = epoch
        begin_epoch(self.drawn, epoch)

    def __iter__(self) -> Iterator[Any]:
        with Draws(self.drawn, seed=derive_seed(self.seed, self.epoch)).drawing():
            drawn = list(self.drawn)
        if self.even:
            drawn += [drawn[index % len(drawn)] for index in range(-len(drawn) % self.world_size)]
        return iter(drawn[self.rank :: self.world_size])

    def __len__(self) -> int:
        missing = self.world_size - 1 if self.even else self.world_size - 1 - self.rank
        return (len(self.drawn) + missing) // self.world_size


def sampler_of(loader: DataLoader) -> Any:
    """The sampler that decides the order; with a `batch_sampler` of the user's own, `loader.sampler` does not."""
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def share_of(loader: DataLoader, *, rank: int, world_size: int, even: bool, seed: int) -> DataLoader:
    """Copy a loader so that it loads the share of one process, in batches of the same size.

    A loader with a `DistributedSampler` or an `IterableDataset` is returned as it is.
    """
    if isinstance(loader.dataset, IterableDataset) or isinstance(sampler_of(loader), DistributedSampler):
        return loader

    def share(drawn: Any) -> ShareSampler:
        return ShareSampler(drawn, rank=rank, world_size=world_size, even=even, seed=seed)

    # Set in the dictionary: DataLoader refuses to set these, and a subclass may have another constructor.
    shared, by_batch = copy.copy(loader), loader.batch_sampler
    if by_batch is None:
        shared.__dict__["sampler"] = share(loader.sampler)
    elif type(by_batch) is BatchSampler:
        sampler = share(by_batch.sampler)
        shared.__dict__["sampler"] = sampler
        shared.__dict__["batch_sampler"] = BatchSampler(sampler, by_batch.batch_size, by_batch.drop_last)
    else:
        shared.__dict__["batch_sampler"] = shared.__dict__["sampler"] = share(by_batch)
    return shared
