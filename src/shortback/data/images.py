"""Labelled uint8 images: the interface of a split, its implementations, and whole data sources."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shortback.errors import UserError


class ImageSet(Protocol):
    """A split of a data source: images that are read by index, with all labels in memory."""

    labels: Tensor  # int64 [len]

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """Return the image at `index`: uint8 [C, H, W]."""
        ...


class ArrayImages:
    """Images of one size, held in one tensor that is in memory or mapped from a file.

    Forked worker processes share the pages of either, so nothing is copied.

    Args:
        images: uint8 [len, C, H, W].
        labels: integers [len].
        files: the file of each image, if the images come from files.

    Raises:
        ValueError: if shapes, types or lengths do not match.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, files: Sequence[str] | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise UserError(f"images must be uint8 [len, C, H, W], not {images.dtype} of shape {list(images.shape)}")
        if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(images):
            raise UserError(
                f"labels must be whole numbers of shape [{len(images)}], one per image, "
                f"not {labels.dtype} of shape {list(labels.shape)}"
            )
        self.images = images
        self.labels = labels.to(torch.int64)
        self.files = files

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        return self.images[index]


class Subset:
    """The images of `source` at `indices`, in that order; only the labels are copied.

    Args:
        source: the split to select from.
        indices: int64 [n].

    Raises:
        ValueError: if `indices` is not an int64 vector or points outside `source`.
    """

    def __init__(self, source: ImageSet, indices: Tensor) -> None:
        if indices.dtype != torch.int64 or indices.ndim != 1:
            raise UserError(f"indices must be int64 [n], not {indices.dtype} of shape {list(indices.shape)}")
        outside = indices[(indices < 0) | (indices >= len(source))]
        if len(outside):
            raise UserError(f"indices must lie in 0 ... {len(source) - 1}, not {outside[:10].tolist()}")
        self.source = source
        self.indices = indices
        self.labels = source.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Tensor:
        return self.source.image(int(self.indices[index]))


def read_images(images: ImageSet, indices: Tensor) -> Tensor | list[Tensor]:
    """Read several images at once.

    Args:
        images: the split to read from.
        indices: int64 [n].

    Returns:
        If the images are held in one tensor, a copy, uint8 [n, C, H, W]; otherwise a list of n images, uint8
        [C, H, W], whose sizes may differ.
    """
    if isinstance(images, Subset):
        return read_images(images.source, images.indices[indices])
    if isinstance(images, ArrayImages):
        # index_select copies whole images; plain indexing copies pixel by pixel, more than ten times slower.
        return images.images.index_select(0, indices)
    return [images.image(index) for index in indices.tolist()]


def file_of(images: ImageSet, index: int) -> str | None:
    """Return the file of an image, as named by its source; None if the image has no file of its own."""
    if isinstance(images, Subset):
        return file_of(images.source, int(images.indices[index]))
    files: Sequence[str] | None = getattr(images, "files", None)
    return None if files is None else files[index]


def shards_of(images: ImageSet) -> Tensor | None:
    """Return the number of the shard that holds each image, int64 [n]; None if the images are not in shards."""
    if isinstance(images, Subset):
        shards = shards_of(images.source)
        return None if shards is None else shards[images.indices]
    return getattr(images, "shards", None)


class Ahead(Protocol):
    """Prefetches the data that an epoch reads next."""

    def reach(self, position: int, *, part: int = 0, parts: int = 1) -> None:
        """Report that process `part` of `parts` now reads samples up to `position` of the epoch; does not block."""
        ...


def prefetcher_of(images: ImageSet, order: Tensor) -> Ahead | None:
    """Return the prefetcher for an epoch that reads `order`, int64 [n]; None if nothing has to be fetched."""
    if isinstance(images, Subset):
        return prefetcher_of(images.source, images.indices[order])
    make = getattr(images, "ahead", None)
    return None if make is None else make(order)


@dataclass(frozen=True)
class ImageData:
    """A whole data source, validated on construction.

    Attributes:
        name: the kind of data, or the name of its folder.
        classes: a name for each label.
        train: the training split.
        test: the test split, meant to be read once, at the end.
        mean: mean of each channel of the training images, in units of [0, 1].
        std: standard deviation of each channel of the training images, in the same units.
        in_channels: number of channels C.
        image_size: side, in pixels, of the square image that the network sees.
        num_steps: number of frames T if samples are sequences, whose images are uint8 [T * C, H, W]; None for
            still images.
        split: name and hash of the split into training and test, for data without an official split; else None.
        sensor: sensor size of event recordings, in pixels, and where it comes from; None for images.

    Raises:
        ValueError: if a label lies outside the classes, the training split is empty, `image_size` is below 1, or
            the statistics do not match `in_channels` or their range.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_channels: int
    image_size: int
    num_steps: int | None = None
    split: str | None = None
    sensor: str | None = None

    def __post_init__(self) -> None:
        if not len(self.train):
            raise UserError(f"{self.name}: there is no training image")
        if self.image_size < 1:
            raise UserError(f"{self.name}: image_size must be at least 1 pixel, not {self.image_size}")
        check_statistics(self.name, self.mean, self.std, self.in_channels)
        for split, labels in (("training", self.train.labels), ("test", self.test.labels)):
            _check_labels(self.name, split, labels, len(self.classes))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def batch_shape(self, num_samples: int) -> tuple[int, ...]:
        """Shape of the batches a loader yields: `(N, C, H, W)`, or `(T, N, C, H, W)` for sequences."""
        image = (num_samples, self.in_channels, self.image_size, self.image_size)
        return image if self.num_steps is None else (self.num_steps, *image)


def check_statistics(name: str, mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Check the mean and the standard deviation of each channel, in units of [0, 1].

    Raises:
        ValueError: they are out of range, or not one for each channel.
    """
    _check_values(name, "mean", mean, channels)
    _check_values(name, "std", std, channels)
    if min(std) <= 0:
        raise UserError(f"{name}: std must be above 0 in every channel, not {tuple(std)}")


def _check_values(name: str, what: str, values: Sequence[float], channels: int) -> None:
    if len(values) != channels:
        raise UserError(f"{name}: {what} needs {channels} numbers, one per channel, not {tuple(values)}")
    if not all(0 <= value <= 1 for value in values):
        raise UserError(f"{name}: {what} is in units of [0, 1]; divide {tuple(values)} by 255")


def _check_labels(name: str, split: str, labels: Tensor, num_classes: int) -> None:
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise UserError(
            f"{name}: {int(wrong.sum())} {split} labels lie outside the {num_classes} classes "
            f"(allowed: 0 ... {num_classes - 1}); the first is {int(labels[index])}, of image {index}"
        )
