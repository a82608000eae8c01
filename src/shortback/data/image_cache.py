"""Read a folder of image files once, and cache which are damaged, their sizes and, if small, their pixels.

The cache consists of up to two files named after a fingerprint of the listing: `<fingerprint>.json`, a `Survey`,
and, if all images have the same small size, `<fingerprint>.raw`, the pixels, which are memory-mapped.
"""

import functools
import hashlib
import json
import logging
import math
import os
import statistics
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from shortback.data.progress import shown
from shortback.data.transient import explained, is_transient
from shortback.files import full_disk_explained, replacing

MAX_CACHED_SIDE = 64

_VERSION = 3  # increase whenever the meaning of the cache files changes
_SHOWN_FROM = 10_000  # files from which progress is shown; fewer are read in seconds
_BLOCK = 4096  # at most this many decoded files in memory at once
_CHUNK = 64  # files per task of a thread; with one each, threads mostly wait for the interpreter
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Survey:
    """Properties of the image files of a folder; sizes and channels are those in all readable headers.

    Attributes:
        bad: index and reason of each file that cannot be read.
        channels: 1 if all images are grey, else 3.
        height: common height of all images, in pixels; None if their sizes differ.
        width: common width of all images, in pixels; None if their sizes differ.
        shorter_side: median of the images' shorter sides, in pixels.
        mean: mean of each channel of the good training images, in units of [0, 1]; if the pixels are not cached,
            ImageNet's (for grey images, averaged over its channels).
        std: standard deviation of each channel, likewise.
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
    """The files of all images, in order, with the metadata that reveals a changed file.

    Attributes:
        files: paths relative to the folder.
        stats: int64 `[files, 2]`, size in bytes and modification time in nanoseconds of each file.
        num_train: number of training images, which come first.
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
    """Read every file of a folder, or load the cached result.

    If several processes call this at once, one reads the files and the others wait.

    Args:
        root: the folder.
        listing: its files.
        cache_dir: parent of the cache folder; if None, the cache is `.shortback-cache` in `root`, or lies in the
            user's cache if `root` is not writable.

    Returns:
        The survey, and the pixels, uint8 [files, C, H, W], mapped from the cache (black for bad files); None in
        place of the pixels unless all images have the same small size.

    Raises:
        OSError: if the cache cannot be written, for example on a full disk; if a file cannot be read for a reason
            other than its content, such as a permission.
        ValueError: if a library needed to read a file cannot be loaded.
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
        # Remove caches of older listings and leftovers of killed processes: while the lock is held, no other process
        # builds this cache. A process that still maps an older file keeps its content.
        for pattern in ("*.json", "*.raw", "*.tmp"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with full_disk_explained("the cache of images", folder, instead="free some space, or give cache_dir"):
            _build(root, listing, folder, name)
        remembered = _open(folder, name, len(listing.files))
    if remembered is None:
        raise OSError(f"the cache in {folder} differs from what was just written to it: is the disk damaged?")
    return remembered


def _open(folder: Path, name: str, num_files: int) -> tuple[Survey, Tensor | None] | None:
    try:
        survey = Survey(**json.loads((folder / f"{name}.json").read_text()))
        if survey.checksum is None:
            return survey, None
        shape = (num_files, survey.channels, survey.height or 0, survey.width or 0)
        path, size = folder / f"{name}.raw", math.prod(shape)
        if path.stat().st_size == size:
            # A private mapping: processes share the pages as long as none writes to them.
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
            read = _attempt_rest(lambda path: read_image(path, channels=channels), paths, bad)
            bad |= writer.write(path, show(read, f"reading {len(paths)} images"))
        mean, std = writer.statistics()
        checksum = writer.checksum
    else:
        checked = show(_attempt_rest(check_image, paths, bad), f"looking for damage in {len(paths)} images")
        bad |= {index: reason for index, reason in enumerate(checked) if reason is not None}
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
    # Written last, because this file makes the cache valid.
    with replacing(folder / f"{name}.json") as path:
        path.write_text(json.dumps(asdict(survey)))


class _PixelWriter:
    """Writes pixels to a file, image by image, and accumulates their checksum and histogram."""

    def __init__(self, shape: tuple[int, int, int], *, num_train: int) -> None:
        self.shape = shape
        self.num_train = num_train
        self.checksum = 0
        self.histogram = np.zeros((shape[0], 256), dtype=np.int64)  # of the good training images

    def write(self, path: Path, images: Iterable[np.ndarray | str]) -> dict[int, str]:
        """Write images [H, W, C] as [C, H, W], bad ones as black; return the reason for each bad index."""
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
        # At least one grey level, because images without any contrast are divided by it too.
        return mean.tolist(), np.maximum(std, 1 / 255).tolist()


def _attempt_all(function: Callable[[str], _Result], paths: Sequence[str]) -> Iterator[_Result | str]:
    """Apply a function to each path in several threads; yield its result, or the reason why it failed."""

    def attempt(path: str) -> _Result | str:
        try:
            return function(path)
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            if is_transient(error):
                raise explained(error, path) from error
            return f"{type(error).__name__}: {error}".replace(f"{path!r}", "").strip(" :")

    def attempt_chunk(chunk: Sequence[str]) -> list[_Result | str]:
        return [attempt(path) for path in chunk]

    with ThreadPoolExecutor() as pool:
        for block in _slices(paths, _BLOCK):
            for results in pool.map(attempt_chunk, _slices(block, _CHUNK)):
                yield from results


def _attempt_rest(
    function: Callable[[str], _Result], paths: Sequence[str], bad: Mapping[int, str]
) -> Iterator[_Result | str]:
    """Like `_attempt_all`, but for the paths with an index in `bad`, yield the reason in it without an attempt."""
    rest = _attempt_all(function, [path for index, path in enumerate(paths) if index not in bad])
    return (bad[index] if index in bad else next(rest) for index in range(len(paths)))


def _slices(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))
