"""The order in which the samples of an epoch are drawn."""

import torch
from torch import Tensor

from shortback.data.images import ImageSet, shards_of

SIDE_BY_SIDE = 16  # shards whose images are drawn from at once


def random_order(images: ImageSet, generator: torch.Generator) -> Tensor:
    """All indices of a split in a random order, int64 [n].

    Of images in shards it is random within `SIDE_BY_SIDE` shards, which are drawn anew every time: a process reads a
    few files at once, and need not have all of them on its disk. Packing mixed the classes of a shard already.
    """
    order = torch.randperm(len(images), generator=generator)
    shards = shards_of(images)
    if shards is None or not len(shards):
        return order
    rank = torch.randperm(int(shards.max()) + 1, generator=generator)
    return order[(rank[shards[order]] // SIDE_BY_SIDE).argsort(stable=True)]
