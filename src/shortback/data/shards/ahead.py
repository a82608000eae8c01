"""Fetch the next shards of an epoch while earlier ones are read."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from shortback.data.shards.index import ShardFile
from shortback.data.shards.store import Store
from shortback.errors import UserError

log = logging.getLogger("shortback")


class FetchAhead:
    """Makes a store fetch the next few shards of an epoch, in a thread of the reading process.

    Processes that read the same epoch begin with different shards, so that they fetch side by side; each finds what the
    others have fetched. A shard that cannot be fetched is skipped here; reading its first image raises the error.

    Args:
        store: the store of the shards.
        shards: the shards of the split.
        numbers: the shard number of each sample of the epoch, int64 [n].
        depth: largest number of shards that are fetched but not yet begun.
    """

    def __init__(self, store: Store, shards: Sequence[ShardFile], numbers: Tensor, *, depth: int) -> None:
        distinct, first = np.unique(numbers.numpy(), return_index=True)
        by_use = first.argsort()
        self.store = store
        self.depth = depth
        self.shards = [shards[number] for number in distinct[by_use]]
        self.first_use = first[by_use]
        self._asked = 0  # number of shards begun or requested
        self._waiting: deque[ShardFile] = deque()
        self._thread: threading.Thread | None = None

    def reach(self, position: int, *, part: int = 0, parts: int = 1) -> None:
        """Report that samples up to `position` of the epoch are being read; returns at once.

        Args:
            part: number of this process among the `parts` that read the epoch.
        """
        begun = int(np.searchsorted(self.first_use, position, side="right"))
        ahead = self.shards[max(begun, self._asked) : begun + self.depth]
        self._asked = max(begun, self._asked) + len(ahead)
        turn = len(ahead) * part // parts
        self._waiting.extend(ahead[turn:] + ahead[:turn])
        if self._waiting and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._fetch, name="shards fetched ahead", daemon=True)
            self._thread.start()

    def _fetch(self) -> None:
        while self._waiting:
            shard = self._waiting.popleft()
            try:
                os.close(self.store.open(shard))
            except (OSError, UserError) as error:
                log.debug("%s was not fetched ahead: %s", shard.name, error)
