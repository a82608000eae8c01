"""What the engine asks of data, and how any loader gives it."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.utils.data import DataLoader

from shortback.data.seeding import derive_seed
from shortback.errors import UserError
from shortback.inspection.layout import sample_axis
from shortback.training.draws import Draws

log = logging.getLogger("shortback")


@runtime_checkable
class Batches(Protocol):
    """Batches of inputs and classes, by epoch; `shortback.data.BatchLoader` is one."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from number `start` on."""
        ...


class SeededBatches:
    """A loader such as a `DataLoader`, whose order and augmentation depend on the seed and the epoch alone.

    Whatever it draws from (`shortback.training.draws`) is seeded anew for every epoch while it draws, and left as it
    was: loading and training do not disturb each other, and a run that is resumed sees what it would have seen. A
    `generator` of its own therefore makes no difference, but with `common_seed`. Persistent workers would go on from
    what they drew in the epoch before, so those of a `DataLoader` are started anew.

    Args:
        loader: gives pairs of inputs and classes anew at every `iter()`, and has a length. The sampler's `set_epoch`
            is called if there is one.
        seed: of its draws.
        common_seed: for a loader that chooses by itself what each of several processes reads, see `Draws`.

    Raises:
        ValueError: it has no length, or nothing in it.
    """

    def __init__(self, loader: Any, *, seed: int = 0, common_seed: int | None = None) -> None:
        if not hasattr(loader, "__len__"):
            raise UserError(f"{type(loader).__name__} has no length: the schedules need to know how long an epoch is")
        if not len(loader):
            raise UserError(f"{type(loader).__name__} has no batch: its data are empty, or fewer than one batch")
        self.loader, self.seed, self.common_seed = _with_new_workers(loader), seed, common_seed

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from number `start` on; those before are read too."""
        set_epoch = getattr(getattr(self.loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        common_seed = None if self.common_seed is None else derive_seed(self.common_seed, epoch)
        draws = Draws(self.loader, seed=derive_seed(self.seed, epoch), common_seed=common_seed)
        with draws.drawing():
            batches = iter(self.loader)
        for index in range(len(self)):
            with draws.drawing():
                batch = next(batches, None)
            if batch is None and not index:
                raise UserError(
                    f"{type(self.loader).__name__} gives nothing in epoch {epoch + 1}: it must give its batches anew "
                    "at every iter(), and a generator or an iterator gives them once"
                )
            if batch is None:
                return
            if index >= start:
                yield _pair(batch)


def _with_new_workers(loader: Any) -> Any:
    """The loader, or one like it whose workers do not persist."""
    if not getattr(loader, "persistent_workers", False):
        return loader
    if not isinstance(loader, DataLoader):  # what is around one asks that one
        _warn_once(
            f"persistent_workers=True: the workers of a {type(loader).__name__} go on from what they drew before, so "
            "that a training that is resumed sees other draws of theirs; give a DataLoader, or persistent_workers=False"
        )
        return loader
    _warn_once(
        "persistent_workers=True: workers are started anew every epoch here, so that what they draw depends on the "
        "seed and the epoch alone; persistent_workers=False does the same without this line"
    )
    alike = copy.copy(loader)
    alike.__dict__["persistent_workers"] = False  # a loader does not let it be set
    return alike


def warn_if_short(batches: Batches, given: int) -> bool:
    """Say so where an epoch had fewer batches than it was said to have, and return whether."""
    if given >= len(batches):
        return False
    loader = getattr(batches, "loader", batches)
    log.warning(
        "%s gave %d batches in an epoch, and its len() is %d: the coefficient and the learning rate go by the second, "
        "and end at %.0f %% of their way; let len() say how many it gives",
        *(type(loader).__name__, given, len(batches), 100 * given / len(batches)),
    )
    return True


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        inside = f" with {', '.join(map(repr, batch))}" if isinstance(batch, dict) else ""
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise UserError(
            f"the loader gives a {type(batch).__name__}{size}{inside}: give pairs of inputs and classes, e.g. by a "
            "collate_fn"
        )
    x, y = batch
    for what, value in (("inputs", x), ("classes", y)):
        if not isinstance(value, Tensor):
            raise UserError(f"the loader gives {what} as a {type(value).__name__}: give tensors")
    if not y.ndim:
        raise UserError("the loader gives one sample at a time: give batches, e.g. by DataLoader(batch_size=64)")
    return x, y


def in_parts(net: nn.Module, x: Tensor, y: Tensor, number: int) -> list[tuple[Tensor, Tensor]]:
    """A batch in a number of parts, fewer if it has fewer samples.

    Raises:
        ValueError: the samples cannot be told apart.
    """
    axis = sample_axis(net, x, len(y))
    if number > 1 and axis is None:
        raise UserError("accumulate: an input that is folded itself cannot be computed in parts")
    return list(zip(x.chunk(number, axis or 0), y.chunk(number), strict=True))
