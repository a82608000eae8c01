"""Batch loading whose order and augmentation depend on the seed alone."""

import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from shortback.data.images import ImageSet, check_statistics, prefetcher_of, read_images
from shortback.data.order import random_order
from shortback.data.seeding import derive_seed, derive_seeds, map_seeded, preserve_global_generator, seed_global
from shortback.data.transforms import Mixing, normalize
from shortback.errors import UserError

# Purposes of derived seeds; without them, order, augmentation and mixing would share their draws.
_ORDER, _SAMPLE, _MIXING = range(3)


@runtime_checkable
class BatchTransform(Protocol):
    """A transform of many images at once, with a seed for each, such as `TrainTransform`."""

    def batch(self, images: Tensor | Sequence[Tensor], *, seeds: Tensor) -> Tensor: ...


class BatchLoader:
    """Loads normalised batches of one split.

    Batch b of epoch e is a pure function of (seed, e, b): the order is drawn from (seed, e), a sample's
    augmentation from (seed, e, position in the epoch), and a batch's mixing from (seed, e, b). So batches do not
    depend on the number of workers or ranks, nor on where an epoch is resumed, and the state of the process's
    global generator is preserved.

    All ranks are constructed with the same arguments except `rank`; each gets its contiguous slice of every global
    batch. A rank whose slice of the last, smaller batch is empty ends one batch earlier, so that the ranks together
    see every sample exactly once.

    Args:
        images: the split.
        transform: a function uint8 [C, H, W] -> uint8 [C, S, S] whose random draws, if any, come from torch's
            global generator; or a `BatchTransform`, which is much faster; or None if all images have the same size.
        batch_size: size of the global batch, over all ranks.
        mean: mean of each channel, in units of [0, 1].
        std: standard deviation of each channel, in the same units.
        seed: seed of all randomness.
        shuffle: draw a new order every epoch.
        drop_last: omit the last, smaller batch.
        num_workers: number of processes that read and augment; with 0, the calling process does so on demand.
        rank: rank of this process.
        world_size: number of ranks.
        mixing: a function (images, labels) -> (images, soft targets) from `batch_mixing`, which pairs each sample
            with the one before it. Mixing is defined on the global batch: a rank gets a slice of the batch that a
            single process would get.
        pin_memory: return the batches in page-locked memory, for asynchronous copies to an accelerator.
        num_steps: number of frames T if samples are sequences, whose images are uint8 [T * C, H, W]; batches are
            then [T, n, C, S, S].

    Raises:
        ValueError: if a number is out of range; if `batch_size` is below `world_size`, or in training (`shuffle` or
            `drop_last`) not a multiple of it; if `drop_last` would leave no batch at all.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        transform: Callable[[Tensor], Tensor] | BatchTransform | None,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        shuffle: bool,
        drop_last: bool,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        mixing: Mixing | None = None,
        pin_memory: bool = False,
        num_steps: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size}")
        if num_workers < 0:
            raise UserError(f"num_workers must be 0 (no processes) or above, not {num_workers}")
        if not 0 <= rank < world_size:
            raise UserError(f"rank must be in 0 ... world_size - 1, not {rank} of {world_size}")
        if (shuffle or drop_last) and batch_size % world_size:
            raise UserError(
                f"the global batch_size of {batch_size} cannot be shared equally by {world_size} processes: "
                f"choose a multiple of {world_size}, such as {batch_size + -batch_size % world_size}"
            )
        if batch_size < world_size:
            raise UserError(
                f"the global batch_size of {batch_size} leaves some of the {world_size} processes without "
                f"samples: choose at least {world_size}"
            )
        if drop_last and batch_size > len(images):
            raise UserError(
                f"a batch of {batch_size} is more than the {len(images)} images: choose a smaller batch_size"
            )
        check_statistics("mean and std", mean, std, len(mean))
        self.images = images
        self.transform = transform
        self.batch_size = batch_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.rank = rank
        self.world_size = world_size
        self.mixing = mixing
        self.pin_memory = pin_memory
        self.num_steps = num_steps

    def __len__(self) -> int:
        """Number of batches per epoch on this rank."""
        full, rest = divmod(len(self.images), self.batch_size)
        if self.drop_last or not rest:
            return full
        first, last = self._slice(full)
        return full + (first < last)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of one epoch from batch `start` on; earlier ones are not read.

        Yields:
            Images float32 [n, C, S, S] in the channels-last memory format (or sequences [T, n, C, S, S]), and
            labels int64 [n], or soft targets float32 [n, num_classes] where batches are mixed.

        Raises:
            ValueError: if `start` is not in 0 ... len(self), or if data is damaged, also when read by a worker.
            OSError: if data cannot be read.
        """
        if not 0 <= start <= len(self):
            raise UserError(f"start must be in 0 ... {len(self)}, the batches of an epoch, not {start}")
        return self._batches(epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            _Epoch(self, epoch),
            batch_size=None,
            sampler=range(start, len(self)),
            num_workers=self.num_workers,
            worker_init_fn=_ignore_interrupts,
            multiprocessing_context=_start_method() if self.num_workers else None,
            generator=torch.Generator(),  # otherwise the base seed of the workers is drawn from the global one
        )
        for batch, found in enumerate(loader, start):
            if isinstance(found, Exception):
                raise found
            pixels, labels = found
            # Normalised here, not in the workers: bytes are a quarter of the data to pass between processes.
            if self.mixing is None:
                images = self._normalized(_folded(pixels, self.num_steps))
            else:
                images, labels = self._mixed(self._normalized(pixels), labels, epoch=epoch, batch=batch)
                images = _folded(images, self.num_steps).contiguous(memory_format=torch.channels_last)
            if self.num_steps is not None:
                images = images.unflatten(0, (self.num_steps, -1))
            if self.pin_memory and torch.accelerator.is_available():
                images, labels = images.pin_memory(), labels.pin_memory()
            yield images, labels

    def _normalized(self, pixels: Tensor) -> Tensor:
        repeats, rest = divmod(pixels.shape[1], len(self.mean))
        if rest or repeats not in (1, self.num_steps):  # a sequence holds the channels of its steps in turn
            raise UserError(f"mean and std need a number for each channel, not {len(self.mean)}")
        return normalize(pixels, mean=self.mean * repeats, std=self.std * repeats)

    def _mixed(self, images: Tensor, labels: Tensor, *, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        assert self.mixing is not None
        with preserve_global_generator():
            seed_global(derive_seed(self.seed, _MIXING, epoch, batch))
            images, labels = self.mixing(images, labels)
        # The first sample is only the partner of the second: see _positions.
        return images[1:].contiguous(memory_format=torch.channels_last), labels[1:]

    def _seeds(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the augmentation seeds of the samples at the given positions in the epoch, int64 [n]."""
        return derive_seeds(self.seed, _SAMPLE, epoch, positions)

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.images))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, _ORDER, epoch))
        return random_order(self.images, generator)

    def _slice(self, batch: int) -> tuple[int, int]:
        """Return the start and end, in the epoch, of this rank's slice of a global batch."""
        begin = batch * self.batch_size
        size = min(self.batch_size, len(self.images) - begin)
        return begin + size * self.rank // self.world_size, begin + size * (self.rank + 1) // self.world_size

    def _positions(self, batch: int) -> Tensor:
        """Return the positions in the epoch of the samples to load: int64 [n], or [1 + n] with mixing."""
        first, last = self._slice(batch)
        positions = torch.arange(first, last)
        if self.mixing is None:
            return positions
        # Mixing pairs each sample with the one before it in the global batch, and the first with the last.
        begin = batch * self.batch_size
        end = min(begin + self.batch_size, len(self.images))
        guest = first - 1 if first > begin else end - 1
        return torch.cat([torch.tensor([guest]), positions])


class _Epoch(Dataset):
    """The batches of one epoch, by number, as a data set for DataLoader: uint8 [n, C, S, S] and int64 [n].

    Workers return user and file errors instead of raising them, because PyTorch would add a traceback to the message of
    a raised error.
    """

    def __init__(self, loader: BatchLoader, epoch: int) -> None:
        self.loader = loader
        self.epoch = epoch
        self.order = loader._order(epoch)
        self.ahead = prefetcher_of(loader.images, self.order)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor] | Exception:
        try:
            return self._read(batch)
        except (UserError, OSError) as error:
            if get_worker_info() is None or not _survives_pickling(error):
                raise
            return error

    def _read(self, batch: int) -> tuple[Tensor, Tensor]:
        positions = self.loader._positions(batch)
        if self.ahead is not None:
            worker = get_worker_info()
            number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
            part, parts = self.loader.rank * workers + number, self.loader.world_size * workers
            self.ahead.reach(int(positions.max()), part=part, parts=parts)
        indices = self.order[positions]
        seeds = self.loader._seeds(self.epoch, positions)
        images = read_images(self.loader.images, indices)
        return _transformed(self.loader.transform, images, seeds), self.loader.images.labels[indices]


def _survives_pickling(error: Exception) -> bool:
    """Whether an error survives pickling unchanged; otherwise it would be lost between processes."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # constructors raise what they like
        return False
    return type(copy) is type(error) and str(copy) == str(error)


def _folded(images: Tensor, num_steps: int | None) -> Tensor:
    """Reshape sequences [n, T * C, H, W] to [T * n, C, H, W]; return still images as they are."""
    return images if num_steps is None else images.unflatten(1, (num_steps, -1)).transpose(0, 1).flatten(0, 1)


def _transformed(
    transform: Callable[[Tensor], Tensor] | BatchTransform | None,
    images: Tensor | list[Tensor],
    seeds: Tensor,
) -> Tensor:
    if isinstance(transform, BatchTransform):
        return transform.batch(images, seeds=seeds)
    if transform is None:
        return images if isinstance(images, Tensor) else torch.stack(images)
    return torch.stack(map_seeded(transform, images, seeds=seeds))


def _start_method() -> str | None:
    """Return `fork` on Linux, however the process itself was started, so that workers share pages mapped from files.

    Workers started otherwise, by default in a spawned process and from Python 3.14 on, get all images through a pipe,
    and PyTorch cannot send a tensor mapped from a file.
    """
    return "fork" if sys.platform == "linux" else None


def _ignore_interrupts(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the parent can stop gracefully only if its workers survive.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
