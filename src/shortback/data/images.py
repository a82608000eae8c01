"""What a data source is: labelled uint8 images, split into training and test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shortback.errors import UserError


class ImageSet(Protocol):
    """A split: images that can be read by index, with all labels in memory."""

    labels: Tensor  # int64 [len]

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """The image at `index`: uint8 [C, H, W]."""
        ...


class ArrayImages:
    """Images of one size that lie in one tensor, in memory or mapped from a file.

    Worker processes that are forked share the pages of either, so nothing is copied.

    Args:
        images: uint8 [len, C, H, W].
        labels: whole numbers [len].
        files: the file each one is from, if it is from one.

    Raises:
        ValueError: if shapes, types or lengths do not fit.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, files: Sequence[str] | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise UserError(f"images must be uint8 [len, C, H, W], not {images.dtype} of shape {list(images.shape)}")
        if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(images):
            raise UserError(
                f"labels must be whole numbers of shape [{len(images)}], one an image, "
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
    """The part of `source` that `indices` names, in that order; nothing is copied but the labels.

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
    """Many images at once.

    Args:
        images: where to read.
        indices: int64 [n].

    Returns:
        uint8 [n, C, H, W] in memory of its own where the images lie in one tensor; else a list of n images
        uint8 [C, H, W], whose sizes may differ.
    """
    if isinstance(images, Subset):
        return read_images(images.source, images.indices[indices])
    if isinstance(images, ArrayImages):
        # index_select copies whole images; plain indexing goes pixel by pixel, more than ten times slower.
        return images.images.index_select(0, indices)
    return [images.image(index) for index in indices.tolist()]


def file_of(images: ImageSet, index: int) -> str | None:
    """The file that an image is from, as its source names it; None where there is none of its own."""
    if isinstance(images, Subset):
        return file_of(images.source, int(images.indices[index]))
    files: Sequence[str] | None = getattr(images, "files", None)
    return None if files is None else files[index]


def shards_of(images: ImageSet) -> Tensor | None:
    """Number of the file that each image is read from along with others, int64 [n]; None where that does not matter."""
    if isinstance(images, Subset):
        shards = shards_of(images.source)
        return None if shards is None else shards[images.indices]
    return getattr(images, "shards", None)


class Ahead(Protocol):
    """Gets ready what an epoch reads next."""

    def reach(self, position: int, *, part: int = 0, parts: int = 1) -> None:
        """Say that a process, `part` of `parts`, reads samples up to `position` of the epoch now; returns at once."""
        ...


def ahead_of(images: ImageSet, order: Tensor) -> Ahead | None:
    """What is to be told how far an epoch in an order, int64 [n], has come; None where nothing has to be fetched."""
    if isinstance(images, Subset):
        return ahead_of(images.source, images.indices[order])
    make = getattr(images, "ahead", None)
    return None if make is None else make(order)


@dataclass(frozen=True)
class ImageData:
    """A whole data source, checked when it is made.

    Attributes:
        name: its kind, or the name of its folder.
        classes: a name for each label.
        train: the training split.
        test: the test split, to be read once, at the end.
        mean: of each channel of the training images, in units of [0, 1].
        std: of each channel of the training images, in the same units.
        in_channels: C of the images.
        image_size: the side, in pixels, of the square that the network sees.
        num_steps: T of samples that are sequences: an image of the splits is then the frames of one, uint8
            [T * C, H, W]; None for images that stand still.
        split: how training and test are told apart, by name and a hash of the lists, where there is no official way.
        sensor: how large the sensor of recordings of events is, in pixels, and what says so; None for images.

    Raises:
        ValueError: for a label outside the classes, a split or statistics that do not fit.
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
        _check_statistics(self.name, "mean", self.mean, self.in_channels)
        _check_statistics(self.name, "std", self.std, self.in_channels)
        if min(self.std) <= 0:
            raise UserError(f"{self.name}: std must be above 0 in every channel, not {self.std}")
        for split, labels in (("training", self.train.labels), ("test", self.test.labels)):
            _check_labels(self.name, split, labels, len(self.classes))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def batch_shape(self, num_samples: int) -> tuple[int, ...]:
        """Of what the loader gives: `(N, C, H, W)`, or `(T, N, C, H, W)` of sequences."""
        image = (num_samples, self.in_channels, self.image_size, self.image_size)
        return image if self.num_steps is None else (self.num_steps, *image)


def _check_statistics(name: str, what: str, values: Sequence[float], channels: int) -> None:
    if len(values) != channels:
        raise UserError(f"{name}: {what} needs {channels} numbers, one a channel, not {tuple(values)}")
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
