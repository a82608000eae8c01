"""The order in which the samples of an epoch are drawn."""

import torch
from torch import Tensor

from shortback.data.images import ImageSet, shards_of

SHARDS_MIXED = 16  # number of shards whose images are mixed


def random_order(images: ImageSet, generator: torch.Generator) -> Tensor:
    """Return all indices of a split in a random order, int64 [n].

    Images in shards are shuffled within groups of `SHARDS_MIXED` shards, and the groups are drawn anew on every call:
    a process then reads few files at once and need not have all of them on its disk. Packing has already mixed the
    classes within each shard.
    """
    order = torch.randperm(len(images), generator=generator)
    shards = shards_of(images)
    if shards is None or not len(shards):
        return order
    rank = torch.randperm(int(shards.max()) + 1, generator=generator)
    return order[(rank[shards[order]] // SHARDS_MIXED).argsort(stable=True)]
