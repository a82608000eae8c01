"""Cache the frames of many recordings: made once, on all cores, then memory-mapped from one file."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from shortback.data.cache_folder import first_writable
from shortback.data.events.frames import Frames, to_frames
from shortback.data.events.recording import Events, MissingLibraryError
from shortback.data.events.sensor import SensorUnknownError, Size
from shortback.data.events.workers import KilledError, results_of
from shortback.data.progress import shown
from shortback.data.transient import explained, is_transient
from shortback.errors import UserError
from shortback.files import full_disk_explained, write_text
from shortback.processes import is_first
from shortback.words import quantity

VERSION = 2  # raise it whenever the meaning of the files changes

log = logging.getLogger("shortback")


@dataclass(frozen=True)
class Recording:
    """One sample.

    Attributes:
        path: the file.
        part: index of the recording among those in the file; 0 if there is one.
    """

    path: Path
    part: int = 0

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}" + (f", {self.part}" if self.part else "")


Read = Callable[[Recording], Events]


@dataclass(frozen=True)
class Cached:
    """The frames of recordings, and what was wrong with some of them.

    Attributes:
        frames: uint8 `[n, T * 2, size, size]`, memory-mapped from the file; 0 for bad recordings.
        bad: the index of each recording that cannot be read, and the reason.
        saturated: number of values above 255, which were clipped.
        folder: the cache folder, which holds all of this.
        sizes: sensor sizes, height and width in pixels, with the number of recordings of each; empty if the cache is
            older than this entry.
    """

    frames: Tensor
    bad: list[tuple[int, str]]
    saturated: int
    folder: Path
    sizes: dict[Size, int]


def cached_frames(
    recordings: Sequence[Recording], read: Read, settings: Frames, *, root: Path, folders: Sequence[Path], key: str
) -> Cached:
    """Return the frames of recordings, from the cache or newly made.

    If several processes ask at once, one makes the frames and the others wait. A cache is identified by its settings
    and by the names, sizes and modification times of the files, as in `make` and `rsync`: a file replaced by another of
    the same name, size and time goes unnoticed, while a folder copied with its times keeps its cache. A cache is
    complete or absent; one that was interrupted is continued.

    Args:
        recordings: the recordings, in the order of the samples.
        read: reads a recording; what it raises, except as below, is stored as the reason why that recording is bad.
        root: the folder of the data; the cache does not depend on how it is spelled.
        folders: folders for the cache, which is looked up in each and made in the first writable one.
        key: identifies what `read` does, besides the files.

    Raises:
        UserError: a library that reads the recordings is missing, or cannot be loaded.
        SensorUnknownError: neither a recording nor a setting gives the size of the sensor.
        OSError: the cache cannot be written, for example because the disk is full; a process was killed; or a recording
            cannot be read for a reason other than its bytes, such as a permission, which is not stored.
    """
    name = _fingerprint(recordings, settings, key, root)
    shape = (len(recordings), settings.num_steps * 2, settings.size, settings.size)
    for folder in folders:
        if found := _open(folder, name, shape):
            return found
    folder = first_writable(folders, what=f"the frames of {root}")
    with FileLock(folder / "frames.lock"):
        if found := _open(folder, name, shape):
            return found
        with full_disk_explained("frames", folder, instead="free some space, or ask for smaller frames"):
            made = _make(recordings, _Job(read, settings, root, folder / f"{name}.partial", shape))
            write_text(folder / f"{name}.json", json.dumps(made))  # last: it makes the cache valid
        found = _open(folder, name, shape)
    if found is None:
        raise OSError(f"the cache in {folder} is not what was just written to it: is the disk damaged?")
    return found


def _fingerprint(recordings: Sequence[Recording], settings: Frames, key: str, root: Path) -> str:
    stats = {path: _size_and_time(path) for path in {recording.path for recording in recordings}}
    names = {path: str(path.relative_to(root) if path.is_relative_to(root) else path.absolute()) for path in stats}
    files = [(names[r.path], r.part, *stats[r.path]) for r in recordings]
    said = asdict(settings)
    if not settings.keep_aspect:
        del said["keep_aspect"]  # as before this setting existed, so that older caches stay valid
    content = json.dumps([VERSION, key, said, files])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:  # a broken link, or one to itself, to be reported with the other unreadable files
        if is_transient(error):
            raise
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _open(folder: Path, name: str, shape: tuple[int, ...]) -> Cached | None:
    path, size = folder / f"{name}.frames", math.prod(shape)
    try:
        known = json.loads((folder / f"{name}.json").read_text())
        if path.stat().st_size != size:
            return None
        frames = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shape)
        bad = [(index, reason) for index, reason in known["bad"]]
        sizes = {(height, width): count for height, width, count in known.get("sizes", [])}
        return Cached(frames, bad, known["saturated"], folder, sizes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the cache in %s cannot be read (%s); it is made again", folder, error)
        return None


Result = tuple[int, str | None, int, Size | None]  # index, why the recording is bad, values clipped, sensor size


@dataclass(frozen=True)
class _Job:
    """Makes the frames of one recording and writes them to its place in the file."""

    read: Read
    settings: Frames
    root: Path
    path: Path
    shape: tuple[int, ...]

    def __call__(self, numbered: tuple[int, Recording]) -> Result:
        index, recording = numbered
        try:
            events = self.read(recording)
            frames, saturated = to_frames(events, self.settings)
        except (MissingLibraryError, SensorUnknownError):
            raise  # not the fault of the file, so not stored
        except Exception as error:  # readers raise nearly anything on damaged bytes
            if is_transient(error):
                raise explained(error, recording.path) from error
            return index, self._reason(recording, error), 0, None
        with self.path.open("r+b") as file:
            file.seek(index * math.prod(self.shape[1:]))
            file.write(np.ascontiguousarray(frames).data)
        return index, None, saturated, (events.height, events.width)

    def _reason(self, recording: Recording, error: Exception) -> str:
        """Why a recording is bad, with its path in the root, which may be spelled differently the next time."""
        reason = str(error)
        if not isinstance(error, UserError):
            what = error.strerror if isinstance(error, OSError) else None
            reason = f"{recording.path}: cannot be read: {what or f'{type(error).__name__}: {error}'}"
        return reason.removeprefix(f"{self.root}{os.sep}")


def _make(recordings: Sequence[Recording], job: _Job) -> dict[str, Any]:
    """Write the frames of all recordings; returns the other entries of `Cached`, as JSON holds them."""
    partial, done = job.path, job.path.with_suffix(".done")
    for left in {*partial.parent.glob("*.partial"), *partial.parent.glob("*.done")} - {partial, done}:
        left.unlink()  # of other settings: under the lock, no process is writing it
    results = _resume_or_allocate(partial, done, math.prod(job.shape))
    known = {index for index, *_ in results}
    left_over = [(index, recording) for index, recording in enumerate(recordings) if index not in known]
    try:
        with done.open("a") as log_file, results_of(job, left_over) as new:
            number = len(left_over)
            if is_first():
                new = shown(new, f"making frames of {quantity(number, 'recording')}", number, from_number=1)
            for result in new:
                results.append(result)
                log_file.write(json.dumps(result) + "\n")
                log_file.flush()
    except KilledError as error:  # the frames made so far are good
        at = ", ".join(str(left_over[index][1]) for index in error.at)
        why = f" while it read {at}: is that file damaged (remove it), or" if at else ":"
        raise ChildProcessError(
            f"frames: a process was killed{why} did memory run out? The frames made so far are kept, and the same "
            "command continues from there"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            partial.unlink(missing_ok=True)
            done.unlink(missing_ok=True)
        raise
    with partial.open("rb+") as file:
        os.fsync(file.fileno())  # before it is said to be whole
    partial.replace(partial.with_suffix(".frames"))
    done.unlink()
    bad = sorted((index, reason) for index, reason, *_ in results if reason is not None)
    sizes = Counter(tuple(size) for *_, size in results if size is not None)
    return {
        "bad": bad,
        "saturated": sum(cut for _, _, cut, _ in results),
        "sizes": [[*size, count] for size, count in sorted(sizes.items())],
    }


def _resume_or_allocate(partial: Path, done: Path, size: int) -> list[Result]:
    """Return the results of an interrupted process; without any, allocate the file."""
    try:
        if partial.stat().st_size == size:
            lines = done.read_text().split("\n")[:-1]  # the last one may be cut off
            results = [(index, reason, cut, size) for index, reason, cut, size in map(json.loads, lines)]
            done.write_text("".join(f"{line}\n" for line in lines))  # or the next result would follow the piece
            return results
    except (OSError, ValueError):
        pass
    done.unlink(missing_ok=True)
    with partial.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is noticed before the work
        except OSError:
            partial.unlink()
            raise
    return []
