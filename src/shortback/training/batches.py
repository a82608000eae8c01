"""The interface through which the engine reads data, and an adapter to it for any loader."""

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
from shortback.health.samples import axis_of_samples
from shortback.inspection.layout import sample_axis
from shortback.training.draws import Draws, begin_epoch

log = logging.getLogger("shortback")


@runtime_checkable
class Batches(Protocol):
    """Batches of inputs and classes, by epoch; `shortback.data.BatchLoader` implements this protocol."""

    def __len__(self) -> int:
        """Number of batches per epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of an epoch, from batch `start` on."""
        ...


class SeededBatches:
    """A loader, such as a `DataLoader`, whose order and augmentation depend on the seed and the epoch alone.

    The generators that the loader draws from (`shortback.training.draws`) are seeded for every epoch while it draws,
    and restored afterwards: loading and training do not disturb each other, and a resumed run sees the batches it would
    have seen. The seed of the loader's own `generator` therefore matters only with `common_seed`. Persistent workers
    would continue from their draws of the previous epoch, so a `DataLoader` starts new workers every epoch.

    Args:
        loader: yields pairs of inputs and classes, starts anew at every `iter()`, and has a length. If a sampler of it
            has a `set_epoch`, that is called.
        seed: seed of the draws, the same in all processes.
        rank: rank of this process, if each is to draw numbers of its own; None if there is one process.
        is_common: whether the loader decides by itself what each of several processes reads, see `Draws`.

    Raises:
        ValueError: the loader has no length, or no batches.
    """

    def __init__(self, loader: Any, *, seed: int = 0, rank: int | None = None, is_common: bool = False) -> None:
        try:
            length = len(loader)
        except TypeError as error:  # also from the data set, whose length a DataLoader asks for
            raise UserError(
                f"{type(loader).__name__} has no length ({error}): the schedules need to know how long an epoch is; "
                "give it, or its IterableDataset, a __len__"
            ) from error
        if not length:
            raise UserError(f"{type(loader).__name__} has no batches: its data are empty or less than one batch")
        self.loader, self.seed, self._length = _with_new_workers(loader), seed, length
        self._own_seed, self._is_common = seed if rank is None else derive_seed(seed, rank), is_common

    def __len__(self) -> int:
        """The number of batches of the loader when this was made: schedules need to know it in advance."""
        return self._length

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of an epoch, from batch `start` on; earlier batches are read and dropped."""
        begin_epoch(self.loader, epoch)
        common_seed = derive_seed(self.seed, epoch) if self._is_common else None
        draws = Draws(self.loader, seed=derive_seed(self._own_seed, epoch), common_seed=common_seed)
        with draws.drawing():
            batches = iter(self.loader)
        for index in range(len(self)):
            with draws.drawing():
                batch = next(batches, None)
            if batch is None and not index:
                raise UserError(
                    f"{type(self.loader).__name__} gives no batches in epoch {epoch + 1}: it must start anew at every "
                    "iter(), which a generator or an iterator does not"
                )
            if batch is None:
                return
            if index >= start:
                yield _pair(batch)
        with draws.drawing():
            if next(batches, None) is not None:
                _warn_once(
                    f"{type(self.loader).__name__} gives more batches in an epoch than its len(), {len(self)}: those "
                    "beyond are not used; make len() the number of batches it gives"
                )


def _with_new_workers(loader: Any) -> Any:
    """Return the loader, or a copy whose workers do not persist if it has persistent workers."""
    if not getattr(loader, "persistent_workers", False):
        return loader
    if not isinstance(loader, DataLoader):  # changing a wrapper would not change the loader inside
        _warn_once(
            f"persistent_workers=True: the workers of a {type(loader).__name__} continue from their earlier draws, so "
            "a resumed training sees different ones; give a DataLoader, or set persistent_workers=False"
        )
        return loader
    _warn_once(
        "persistent_workers=True: workers are restarted every epoch here, so that their draws depend on the seed and "
        "the epoch alone; persistent_workers=False does the same without this warning"
    )
    alike = copy.copy(loader)
    alike.__dict__["persistent_workers"] = False  # DataLoader.__setattr__ refuses to set it
    return alike


def warn_if_short(batches: Batches, given: int) -> bool:
    """Warn if an epoch had only `given` batches, fewer than its `len()`, and return whether it did."""
    if given >= len(batches):
        return False
    loader = getattr(batches, "loader", batches)
    log.warning(
        "%s gave %d batches in an epoch, but its len() is %d: the coefficient and the learning rate follow len(), and "
        "stop at %.0f %% of their course; make len() the number of batches it gives",
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
            f"the loader gives a {type(batch).__name__}{size}{inside}: give pairs of inputs and classes, e.g. with a "
            "collate_fn"
        )
    x, y = batch
    for what, value in (("inputs", x), ("classes", y)):
        if not isinstance(value, Tensor):
            raise UserError(f"the loader gives {what} as a {type(value).__name__}: give tensors")
    if not y.ndim:
        raise UserError("the loader gives one sample at a time: give batches, e.g. with DataLoader(batch_size=64)")
    if not len(y):
        raise UserError("the loader gives a batch without samples: leave such batches out")
    return x, y


def split_batch(net: nn.Module, x: Tensor, y: Tensor, number: int) -> list[tuple[Tensor, Tensor]]:
    """Split a batch into at most `number` parts of equal size, but for the last, as `torch.chunk` does.

    Raises:
        ValueError: `number` is above 1, and the input has no axis of samples alone.
    """
    if number == 1:
        return [(x, y)]
    axis = axis_of_samples(net, x, len(y))
    axis = sample_axis(net, x, len(y)) if axis is None else axis  # the likely one, if a run did not tell
    if axis is None:
        raise UserError("accumulate: an input whose first axis folds time and samples cannot be split into parts")
    return list(zip(x.chunk(number, axis), y.chunk(number), strict=True))
