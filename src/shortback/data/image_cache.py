"""A folder of image files, read once: which are damaged, what the others hold, and their pixels if small.

The result is remembered in two files named after a fingerprint of the listing: `<fingerprint>.json`, a
`Survey`, and, where all images have one small size, `<fingerprint>.raw`, the pixels to map into memory.
"""

import functools
import hashlib
import json
import logging
import math
import os
import statistics
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from shortback.data.cache_folder import cache_folders, first_writable
from shortback.data.image_files import FileInfo, check_image, read_image, read_info
from shortback.data.packed import PackedStrings
from shortback.data.passing import explained, is_passing
from shortback.data.progress import shown
from shortback.files import full_disk_explained, replacing

MAX_CACHED_SIDE = 64

_VERSION = 2  # to be raised whenever the meaning of the files changes
_SHOWN_FROM = 10_000  # files; fewer are read in seconds
_BLOCK = 4096  # files whose pixels are in memory at once
_CHUNK = 64  # files a thread takes at once; with single ones the threads mostly wait for the interpreter
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Survey:
    """What the files of a folder hold.

    Attributes:
        bad: index and reason of each file that cannot be read.
        channels: 1 if all good images are grey, else 3.
        height: of all good images, in pixels; None if their sizes differ.
        width: the same.
        shorter_side: of the good images, in pixels, the median.
        mean: of each channel of the good training images, in units of [0, 1]; ImageNet's if not cached.
        std: the same.
        checksum: CRC-32 of the cached pixels; None if they are not cached.
    """

    bad: list[tuple[int, str]]
    channels: int
    height: int | None
    width: int | None
    shorter_side: int
    mean: list[float]
    std: list[float]
    checksum: int | None


@dataclass(frozen=True)
class Listing:
    """Files in the order of their images, with all that would change if one of them did.

    Attributes:
        files: paths relative to the folder.
        stats: size in bytes and time of modification in nanoseconds of each, int64 `[files, 2]`.
        num_train: the first so many are for training.
    """

    files: PackedStrings
    stats: np.ndarray
    num_train: int

    def fingerprint(self) -> str:
        files = self.files.trimmed()
        hashed = hashlib.blake2b(json.dumps([_VERSION, MAX_CACHED_SIDE, self.num_train]).encode(), digest_size=16)
        for array in (files.text, files.bounds, self.stats):
            hashed.update(np.ascontiguousarray(array).data)
        return hashed.hexdigest()


def survey_folder(root: Path, listing: Listing, *, cache_dir: Path | None) -> tuple[Survey, Tensor | None]:
    """Read every file, or remember it from the last time.

    Of processes that ask at once, one reads and the others wait for it.

    Args:
        root: the folder.
        listing: its files.
        cache_dir: where to remember; else `.shortback-cache` in the folder, or the user's cache where that
            cannot be written.

    Returns:
        What the files hold, and uint8 [files, C, H, W] mapped from the cache if they are small and of one
        size; the images of bad files are black.

    Raises:
        OSError: if the cache cannot be written, a full disk among the reasons; if a file cannot be read for a reason
            that is none of its bytes, such as a permission.
    """
    name = listing.fingerprint()
    folders = cache_folders(root, cache_dir)
    for folder in folders:
        if remembered := _open(folder, name, len(listing.files)):
            return remembered
    folder = first_writable(folders, what=f"the images of {root}")
    with FileLock(folder / "lock"):
        if remembered := _open(folder, name, len(listing.files)):
            return remembered
        # Older listings, and what a killed process left: the lock says that nobody is writing. A process that
        # still maps an older file keeps it.
        for pattern in ("*.json", "*.raw", "*.tmp"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with full_disk_explained("the cache of images", folder, instead="free some space, or give cache_dir"):
            _build(root, listing, folder, name)
        remembered = _open(folder, name, len(listing.files))
    if remembered is None:
        raise OSError(f"the cache in {folder} is not what was just written to it: is the disk damaged?")
    return remembered


def _open(folder: Path, name: str, num_files: int) -> tuple[Survey, Tensor | None] | None:
    try:
        survey = Survey(**json.loads((folder / f"{name}.json").read_text()))
        if survey.checksum is None:
            return survey, None
        shape = (num_files, survey.channels, survey.height or 0, survey.width or 0)
        path, size = folder / f"{name}.raw", math.prod(shape)
        if path.stat().st_size == size:
            # Mapped privately: processes share the pages for as long as nobody writes to them.
            pixels = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
            if zlib.crc32(pixels.numpy().data) == survey.checksum:
                return survey, pixels.view(shape)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        _logger.warning("the cache in %s cannot be read (%s); it is built again", folder, error)
        return None
    _logger.warning("the cache in %s is damaged; it is built again", folder)
    return None


def _build(root: Path, listing: Listing, folder: Path, name: str) -> None:
    _logger.info("reading the %d images of %s, once", len(listing.files), root)
    paths = [f"{root}{os.sep}{file}" for file in listing.files]
    show = functools.partial(shown, number=len(paths), from_number=_SHOWN_FROM)
    infos = list(show(_attempt_all(read_info, paths), f"headers of {len(paths)} images"))
    bad = {index: info for index, info in enumerate(infos) if isinstance(info, str)}
    good = [info for info in infos if isinstance(info, FileInfo)]
    sizes = {(info.height, info.width) for info in good}
    channels = 1 if all(info.grey for info in good) else 3
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    checksum = None
    if height is not None and width is not None and max(height, width) <= MAX_CACHED_SIDE:
        writer = _PixelWriter((channels, height, width), num_train=listing.num_train)
        with replacing(folder / f"{name}.raw") as path:
            read = _attempt_all(lambda path: read_image(path, channels=channels), paths)
            bad |= writer.write(path, show(read, f"reading {len(paths)} images"))
        mean, std = writer.statistics()
        checksum = writer.checksum
    else:
        checked = show(_attempt_all(check_image, paths), f"looking for damage in {len(paths)} images")
        reasons = enumerate(checked)
        bad |= {index: reason for index, reason in reasons if reason is not None and index not in bad}
        mean = list(_IMAGENET_MEAN) if channels == 3 else [sum(_IMAGENET_MEAN) / 3]
        std = list(_IMAGENET_STD) if channels == 3 else [sum(_IMAGENET_STD) / 3]
    survey = Survey(
        bad=sorted(bad.items()),
        channels=channels,
        height=height,
        width=width,
        shorter_side=int(statistics.median(min(info.height, info.width) for info in good)) if good else 1,
        mean=mean,
        std=std,
        checksum=checksum,
    )
    # Last, because it makes the cache valid.
    with replacing(folder / f"{name}.json") as path:
        path.write_text(json.dumps(asdict(survey)))


class _PixelWriter:
    """Writes pixels to a file, block by block, and sums up what it has written."""

    def __init__(self, shape: tuple[int, int, int], *, num_train: int) -> None:
        self.shape = shape
        self.num_train = num_train
        self.checksum = 0
        self.histogram = np.zeros((shape[0], 256), dtype=np.int64)  # of the good training images

    def write(self, path: Path, images: Iterable[np.ndarray | str]) -> dict[int, str]:
        """Write images [H, W, C] as [C, H, W], bad ones black; return the index and reason of those."""
        bad = {}
        with path.open("wb") as file:
            for index, image in enumerate(images):
                if isinstance(image, str):
                    bad[index] = image
                    planes = np.zeros(self.shape, dtype=np.uint8)
                else:
                    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
                    if index < self.num_train:
                        for counts, plane in zip(self.histogram, planes, strict=True):
                            counts += np.bincount(plane.ravel(), minlength=256)
                self.checksum = zlib.crc32(planes.data, self.checksum)
                file.write(planes.data)
        return bad

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, in units of [0, 1]."""
        values = np.arange(256) / 255
        shares = self.histogram / np.maximum(self.histogram.sum(axis=1, keepdims=True), 1)
        mean = shares @ values
        std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 0))
        # Images without any contrast still have to be divided by something: one grey level.
        return mean.tolist(), np.maximum(std, 1 / 255).tolist()


def _attempt_all(function: Callable[[str], _Result], paths: Sequence[str]) -> Iterator[_Result | str]:
    """The result for each path, or the reason why there is none, by several threads."""

    def attempt(path: str) -> _Result | str:
        try:
            return function(path)
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            if is_passing(error):
                raise explained(error, path) from error
            return f"{type(error).__name__}: {error}".replace(f"{path!r}", "").strip(" :")

    def attempt_chunk(chunk: Sequence[str]) -> list[_Result | str]:
        return [attempt(path) for path in chunk]

    with ThreadPoolExecutor() as pool:
        for block in _slices(paths, _BLOCK):
            for results in pool.map(attempt_chunk, _slices(block, _CHUNK)):
                yield from results


def _slices(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))
