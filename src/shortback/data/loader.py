"""Batches in an order, and with an augmentation, that depend on the seed alone."""

import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from shortback.data.images import ImageSet, ahead_of, read_images
from shortback.data.order import random_order
from shortback.data.seeding import derive_seed, derive_seeds, global_generator_kept, map_seeded, seed_global
from shortback.data.transforms import Mixing, normalize
from shortback.errors import UserError

# What a seed is for; without it the order, the samples and the mixing would share their draws.
_ORDER, _SAMPLE, _MIXING = range(3)


@runtime_checkable
class BatchTransform(Protocol):
    """A transform that takes many images at once, with a seed for each; `TrainTransform` is one."""

    def batch(self, images: Tensor | Sequence[Tensor], *, seeds: Tensor) -> Tensor: ...


class BatchLoader:
    """Normalised batches of one split.

    Batch b of epoch e is a pure function of (seed, e, b): the order is drawn from (seed, e), a sample's
    augmentation from (seed, e, position in the epoch), a batch's mixing from (seed, e, b). So the number of
    workers, the number of ranks and the place where an epoch is resumed change nothing, and the process's
    global generator is left as it was.

    Every rank is given the same arguments but its `rank`, and gets its contiguous slice of each global batch.
    A rank whose slice of the last, smaller batch is empty ends one batch sooner, so that over the ranks every
    sample is seen exactly once.

    Args:
        images: the split.
        transform: uint8 [C, H, W] -> uint8 [C, S, S], drawing from torch's global generator if at all; or a
            `BatchTransform`, which is much faster; or None for images that all have the same size.
        batch_size: of the global batch, over all ranks.
        mean: of each channel, in units of [0, 1].
        std: of each channel, in the same units.
        seed: of everything random.
        shuffle: draw a new order every epoch.
        drop_last: leave the last, smaller batch out.
        num_workers: processes that read and augment; 0 does it in this one, when a batch is asked for.
        rank: of this process.
        world_size: number of ranks.
        mixing: from `batch_mixing`: (images, labels) -> (images, soft targets), pairing each sample with
            the one before it. It acts on the global batch: what a rank gets is a slice of what a single
            process gets.
        pin_memory: return the images in page-locked memory, for asynchronous copies to an accelerator.
        num_steps: T of samples that are sequences, whose images are uint8 [T * C, H, W]; batches are then
            [T, n, C, S, S].

    Raises:
        ValueError: for numbers out of range; in training (`shuffle` or `drop_last`), if the ranks would
            not get equal shares of a batch; if `drop_last` would leave no batch at all.
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
        """Batches an epoch, on this rank."""
        full, rest = divmod(len(self.images), self.batch_size)
        if self.drop_last or not rest:
            return full
        first, last = self._slice(full)
        return full + (first < last)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, from batch `start` on; nothing before it is read.

        Yields:
            Images float32 [n, C, S, S] in the channels-last memory format (or sequences [T, n, C, S, S]), and
            labels int64 [n], or soft targets float32 [n, num_classes] where batches are mixed.

        Raises:
            ValueError: if `start` is not in 0 ... len(self); or data cannot be read, here or in one of `num_workers`.
            OSError: data cannot be read.
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
            generator=torch.Generator(),  # or the base seed of the workers is drawn from the global one
        )
        for batch, found in enumerate(loader, start):
            if isinstance(found, Exception):
                raise found
            pixels, labels = found
            # Here, not in the workers: bytes are a quarter of what has to pass between the processes.
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
        repeats = pixels.shape[1] // len(self.mean)  # the channels of the steps of a sequence one after another
        return normalize(pixels, mean=self.mean * repeats, std=self.std * repeats)

    def _mixed(self, images: Tensor, labels: Tensor, *, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        assert self.mixing is not None
        with global_generator_kept():
            seed_global(derive_seed(self.seed, _MIXING, epoch, batch))
            images, labels = self.mixing(images, labels)
        # The first is the guest that the second was paired with: see _positions.
        return images[1:].contiguous(memory_format=torch.channels_last), labels[1:]

    def _seeds(self, epoch: int, positions: Tensor) -> Tensor:
        """Of the augmentation of the samples at some positions in the epoch, int64 [n]."""
        return derive_seeds(self.seed, _SAMPLE, epoch, positions)

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.images))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, _ORDER, epoch))
        return random_order(self.images, generator)

    def _slice(self, batch: int) -> tuple[int, int]:
        """Where this rank's part of a global batch begins and ends in the epoch."""
        begin = batch * self.batch_size
        size = min(self.batch_size, len(self.images) - begin)
        return begin + size * self.rank // self.world_size, begin + size * (self.rank + 1) // self.world_size

    def _positions(self, batch: int) -> Tensor:
        """Positions in the epoch of the samples to load: int64 [n], with mixing [1 + n]."""
        first, last = self._slice(batch)
        positions = torch.arange(first, last)
        if self.mixing is None:
            return positions
        # Mixing pairs a sample with the one before it in the global batch, the first of all with the last.
        begin = batch * self.batch_size
        end = min(begin + self.batch_size, len(self.images))
        guest = first - 1 if first > begin else end - 1
        return torch.cat([torch.tensor([guest]), positions])


class _Epoch(Dataset):
    """The batches of one epoch by number, as DataLoader wants them: uint8 [n, C, S, S] and int64 [n].

    Processes of a loader return what users and files have done wrong: raised, PyTorch would put a traceback into its
    message.
    """

    def __init__(self, loader: BatchLoader, epoch: int) -> None:
        self.loader = loader
        self.epoch = epoch
        self.order = loader._order(epoch)
        self.ahead = ahead_of(loader.images, self.order)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor] | Exception:
        try:
            return self._read(batch)
        except (UserError, OSError) as error:
            if get_worker_info() is None or not _travels(error):
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


def _travels(error: Exception) -> bool:
    """Whether an error comes out of a queue between processes as it went in; one that does not would be lost."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # constructors raise what they like
        return False
    return type(copy) is type(error) and str(copy) == str(error)


def _folded(images: Tensor, num_steps: int | None) -> Tensor:
    """Sequences [n, T * C, H, W] as [T * n, C, H, W]; images are left as they are."""
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
    """Forked where that is the custom, whatever the process itself was started by: pages mapped from a file are shared.

    A worker that is spawned, the default in a spawned process and from Python 3.14 on, gets all images through a pipe,
    and of a tensor that is mapped from a file PyTorch cannot send one.
    """
    return "fork" if sys.platform == "linux" else None


def _ignore_interrupts(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the parent can only stop gracefully if workers live on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
