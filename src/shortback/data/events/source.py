"""Make a data source from lists of recordings."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from shortback.data.cache_folder import cache_folders
from shortback.data.events.cache import Cached, Read, Recording, cached_frames
from shortback.data.events.frames import Frames
from shortback.data.events.sensor import Size, described, warn_of_sizes
from shortback.data.images import ArrayImages, ImageData, ImageSet, Subset
from shortback.errors import UserError

log = logging.getLogger("shortback")

NUM_NAMED = 10  # bad files, or missing classes, that a message lists


@dataclass(frozen=True)
class Labelled:
    """The recordings of a split and the numbers of their classes."""

    recordings: list[Recording]
    labels: list[int]


def make_source(
    name: str,
    *,
    classes: Sequence[str],
    train: Labelled,
    test: Labelled,
    read: Read,
    frames: Frames,
    root: Path,
    key: str,
    skip_bad: bool,
    cache_dir: Path | None,
    split: str | None = None,
    sensor: Size | None = None,
    size_source: str = "of the data set",
) -> ImageData:
    """Make a source whose images are frames of recordings; values are counts, or 0 and 1, and are not normalised.

    Args:
        name: name of the source.
        classes: a name for each label.
        read: reads a recording; `key` identifies what it does.
        root: the folder of the data.
        skip_bad: leave out recordings that cannot be read, with a warning, instead of raising.
        cache_dir: the folder for cached frames, see `cache_folders`.
        split: the name of the split, if there is a choice.
        sensor: height and width of all recordings, in pixels, if known before they are read.
        size_source: where the sensor size comes from, in words.

    Raises:
        UserError: recordings cannot be read, or a class is missing from a split.
        SensorUnknownError: neither a recording nor a setting gives the size of the sensor.
        OSError: the cache cannot be written.
    """
    for part, what in ((train, "training"), (test, "test")):  # before the recordings are read
        _check_classes(name, what, classes, torch.tensor(part.labels, dtype=torch.int64))
    recordings = [*train.recordings, *test.recordings]
    folders = cache_folders(root, cache_dir)
    cached = cached_frames(recordings, read, frames, root=root, folders=folders, key=key)
    _report(recordings, cached, root, skip_bad=skip_bad)
    sizes = cached.sizes or ({} if sensor is None else {sensor: len(recordings)})
    warn_of_sizes(sizes, frame=frames.size, keep_aspect=frames.keep_aspect, root=root)
    good = torch.ones(len(recordings), dtype=torch.bool)
    good[[index for index, _ in cached.bad]] = False
    splits: list[ImageSet] = []
    for part, begin, what in ((train, 0, "training"), (test, len(train.recordings), "test")):
        here = slice(begin, begin + len(part.recordings))
        labels = torch.tensor(part.labels, dtype=torch.int64)
        images = ArrayImages(cached.frames[here], labels, files=[str(recording) for recording in part.recordings])
        kept = good[here].nonzero().squeeze(1)
        _check_classes(name, what, classes, images.labels[kept])
        splits.append(images if len(kept) == len(images) else Subset(images, kept))
    return ImageData(
        name=name,
        classes=tuple(classes),
        train=splits[0],
        test=splits[1],
        mean=(0.0, 0.0),
        std=(1 / 255, 1 / 255),
        in_channels=2,
        image_size=frames.size,
        num_steps=frames.num_steps,
        split=None if split is None else f"{split} ({split_hash(test.recordings, root)})",
        sensor=described(sizes, size_source) + _fit(sizes, frames) if sizes else None,
    )


def _fit(sizes: Iterable[Size], frames: Frames) -> str:
    if all(height == width for height, width in sizes):
        return ""
    return ", its aspect kept in a square" if frames.keep_aspect else ", stretched to a square"


def split_hash(test: Sequence[Recording], root: Path) -> str:
    """Eight hexadecimal digits that identify a split: a hash of the paths of its test files within `root`."""
    names = "\n".join(sorted(f"{recording.path.relative_to(root).as_posix()} {recording.part}" for recording in test))
    return hashlib.blake2b(names.encode(errors="surrogateescape"), digest_size=4).hexdigest()


def _report(recordings: Sequence[Recording], cached: Cached, root: Path, *, skip_bad: bool) -> None:
    if cached.saturated:
        log.warning("frames of %s: %d values exceed 255 events and are clipped", root, cached.saturated)
    if not cached.bad:
        return
    lines = [f"    {reason}" for _, reason in cached.bad[:NUM_NAMED]]
    if len(cached.bad) > NUM_NAMED:
        lines.append(f"    ... and {len(cached.bad) - NUM_NAMED} more")
    what = f"{len(cached.bad)} of the {len(recordings)} recordings in {root} cannot be read"
    if not skip_bad:
        instead = "Replace or remove them, or leave them out with skip_bad."
        remembered = f"What was read is cached in {cached.folder}, which can be deleted."
        raise UserError("\n".join([f"{what}:", *lines, f"{instead} {remembered}"]))
    log.warning("%s", "\n".join([f"{what}, and are left out:", *lines]))


def _check_classes(name: str, what: str, classes: Sequence[str], labels: torch.Tensor) -> None:
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    missing = [each for each, count in zip(classes, counts, strict=True) if not count]
    if missing:
        raise UserError(f"{name}: there is no {what} recording of {', '.join(missing[:NUM_NAMED])}")
