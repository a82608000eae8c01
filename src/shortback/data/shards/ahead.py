"""Shards that come next in an epoch, fetched while those before them are read."""

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
    """Has a store fetch the next few shards of an epoch, in a thread of whatever process reads.

    Processes that read the same epoch begin at different ones of them, so that they fetch side by side; what one has
    fetched the others find. A shard that cannot be had is left to whoever reads its first image, who says so.

    Args:
        store: of the shards.
        shards: of the split.
        numbers: of the shard of each sample of the epoch, int64 [n].
        depth: shards at most that are fetched and not yet begun.
    """

    def __init__(self, store: Store, shards: Sequence[ShardFile], numbers: Tensor, *, depth: int) -> None:
        distinct, first = np.unique(numbers.numpy(), return_index=True)
        by_use = first.argsort()
        self.store = store
        self.depth = depth
        self.shards = [shards[number] for number in distinct[by_use]]
        self.first_use = first[by_use]
        self._asked = 0  # shards that have been begun, or asked for
        self._waiting: deque[ShardFile] = deque()
        self._thread: threading.Thread | None = None

    def reach(self, position: int, *, part: int = 0, parts: int = 1) -> None:
        """Say that samples up to `position` of the epoch are read now; returns at once.

        Args:
            part: of this process, among `parts` that read the epoch.
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
