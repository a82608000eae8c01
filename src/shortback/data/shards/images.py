"""The images of a split of shards, read one by one."""

from __future__ import annotations

import os
from collections import OrderedDict
from tarfile import BLOCKSIZE
from typing import Final

import numpy as np
import torch
from torch import Tensor

from shortback.data.image_files import as_image, decode_image
from shortback.data.order import SHARDS_MIXED
from shortback.data.shards.ahead import FetchAhead
from shortback.data.shards.index import INDEX, Places, SplitShards
from shortback.data.shards.store import Store
from shortback.errors import UserError

_OPEN: Final = 64  # shards that a process keeps open if none is ever removed; systems allow some hundreds of files


class ShardImages:
    """Images in shards, decoded each time they are read.

    Args:
        split: the shards of the split.
        places: where the images lie in the shards.
        store: opens the shards.
        channels: 1 for grey, 3 for RGB.
    """

    def __init__(self, split: SplitShards, places: Places, store: Store, *, channels: int) -> None:
        self.split = split
        self.places = places
        self.store = store
        self.channels = channels
        self.labels = torch.from_numpy(places.labels).long()
        self.shards = torch.from_numpy(places.shards).long()  # the loader uses them to draw orders
        self._opened: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """Decode one image: uint8 [C, H, W].

        Raises:
            ValueError: the shard has been cut short or damaged since it was checked.
            OSError: the shard cannot be opened or fetched.
        """
        number = int(self.places.shards[index])
        size, offset = int(self.places.sizes[index]), int(self.places.offsets[index])
        content = os.pread(self._open(number), size, offset)
        where = f"{self.places.name(index)} in the shard {self.split.shards[number].name}"
        if len(content) < size:
            raise UserError(f"{where} cannot be read: the shard ends before it; copy the shard again")
        try:
            return as_image(decode_image(content, channels=self.channels))
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise UserError(f"{where} cannot be read: {error}") from error

    def ahead(self, order: Tensor) -> FetchAhead | None:
        """Return a fetcher for the shards of an epoch in `order`, int64 [n]; None if all shards are there."""
        depth = self.store.ahead(max(shard.size for shard in self.split.shards))
        return FetchAhead(self.store, self.split.shards, self.shards[order], depth=depth) if depth else None

    def _open(self, number: int) -> int:
        if number not in self._opened:
            self._opened[number] = self.store.open(self.split.shards[number])
            self._check_first(number)
            while len(self._opened) > (_OPEN if self.store.limit is None else SHARDS_MIXED):
                os.close(self._opened.popitem(last=False)[1])
            if self.store.limit is not None:
                self._close_removed(but=number)
        self._opened.move_to_end(number)
        return self._opened[number]

    def _check_first(self, number: int) -> None:
        """Check that a shard begins with its own first image: a folder's shards are compared by their sizes alone."""
        first = int(np.searchsorted(self.places.shards, number))
        header = os.pread(self._opened[number], BLOCKSIZE, int(self.places.offsets[first]) - BLOCKSIZE)
        if header[:100].rstrip(b"\0") != self.places.name(first).encode():
            os.close(self._opened.pop(number))
            raise UserError(
                f"{self.split.shards[number].name} does not hold the images that {INDEX} has for it: copy the shard "
                "again"
            )

    def _close_removed(self, *, but: int) -> None:
        """Close copies that were removed to make room: they take up space for as long as they are open."""
        for number, descriptor in list(self._opened.items()):
            if number != but and not os.fstat(descriptor).st_nlink:
                del self._opened[number]
                os.close(descriptor)

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_opened", {}).values():
            os.close(descriptor)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": OrderedDict()}  # a descriptor means nothing to another process
