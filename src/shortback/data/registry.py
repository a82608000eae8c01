"""Data sources by name."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from shortback.choices import DataKind, nearest
from shortback.data.bundled import load_bundled
from shortback.data.image_folder import load_image_folder
from shortback.data.images import ImageData
from shortback.data.vision import load_cifar, load_fashion_mnist
from shortback.errors import UserError

DATA_KINDS: tuple[DataKind, ...] = get_args(DataKind)


def load_data(
    kind: str,
    *,
    root: str | Path | None = None,
    download: bool = False,
    skip_bad: bool = False,
    image_size: int | None = None,
    cache_dir: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageData:
    """Load a data source and check it.

    Args:
        kind: one of `DATA_KINDS`.
        root: the folder of the data; `bundled` needs none, `image_folder` must have one, for the others see
            `shortback.data.vision`.
        download: fetch what is missing, for the kinds that can be.
        skip_bad: leave damaged files of an `image_folder` out instead of raising.
        image_size: the side, in pixels, of what the network sees, if not that of the images.
        cache_dir: where an `image_folder` keeps its cache, if not in `root`.
        mean: of each channel, in units of [0, 1], instead of that of the training images.
        std: the same.

    Raises:
        ValueError: for an unknown kind, or data that is damaged or inconsistent.
        FileNotFoundError: if the data is missing; the message gives the layout that is expected.
        OSError: if a download fails or a cache cannot be written.
    """
    if kind == "bundled":
        data = load_bundled()
    elif kind == "fashion_mnist":
        data = load_fashion_mnist(root=root, download=download)
    elif kind in ("cifar10", "cifar100"):
        data = load_cifar(kind, root=root, download=download)
    elif kind == "image_folder":
        if root is None:
            raise UserError("data of kind 'image_folder' needs root, the folder that holds train/ and test/")
        data = load_image_folder(root, skip_bad=skip_bad, cache_dir=cache_dir)
    else:
        near = nearest(kind, DATA_KINDS)
        raise UserError(f"there is no data of kind {kind!r}; the nearest are {near}; known: {', '.join(DATA_KINDS)}")
    return dataclasses.replace(
        data,
        image_size=data.image_size if image_size is None else image_size,
        mean=data.mean if mean is None else tuple(mean),
        std=data.std if std is None else tuple(std),
    )
