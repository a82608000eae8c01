"""The frames of many recordings, made once by all cores and mapped from one file from then on."""

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
from shortback.data.passing import explained, is_passing
from shortback.data.progress import shown
from shortback.errors import UserError
from shortback.files import full_disk_explained, write_text
from shortback.processes import is_first

VERSION = 2  # to be raised whenever the meaning of the files changes

log = logging.getLogger("shortback")


@dataclass(frozen=True)
class Recording:
    """One sample.

    Attributes:
        path: the file.
        part: which of several recordings in the file; 0 of a file that holds one.
    """

    path: Path
    part: int = 0

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}" + (f", {self.part}" if self.part else "")


Read = Callable[[Recording], Events]


@dataclass(frozen=True)
class Cached:
    """The frames of recordings, and what was wrong with some.

    Attributes:
        frames: uint8 `[n, T * 2, size, size]`, mapped from the file; those of bad recordings are 0.
        bad: index and reason of each recording that cannot be read.
        saturated: values that were more than 255 and were cut.
        folder: of the cache, in which the above is remembered.
        sizes: of the sensors, height and width in pixels, and how many recordings are of each; empty where the cache is
            of a time when they were not noted.
    """

    frames: Tensor
    bad: list[tuple[int, str]]
    saturated: int
    folder: Path
    sizes: dict[Size, int]


def cached_frames(
    recordings: Sequence[Recording], read: Read, settings: Frames, *, root: Path, folders: Sequence[Path], key: str
) -> Cached:
    """The frames of recordings, from the cache or made anew.

    Of processes that ask at once, one makes them and the others wait. A cache is known by its settings and by the
    names, sizes and times of modification of the files, as `make` and `rsync` know files: a file that is replaced
    under the same name with the same size and time is not noticed, while a folder that is copied with its times brings
    its cache along. It is whole or not there, and one that was stopped half made goes on.

    Args:
        recordings: in the order of the samples.
        read: reads one of them; whatever it raises is the reason why that one is bad.
        root: the folder of the data: however it is spelled, the cache is the same.
        folders: for the cache, which is looked for in each and made in the first that can be written.
        key: what `read` does, beside the files.

    Raises:
        UserError: a library is missing that reads the recordings.
        SensorUnknownError: neither a recording nor a setting says how large the sensor is.
        OSError: the cache cannot be written, a full disk among the reasons; a process was killed; or a recording cannot
            be read for a reason that is none of its bytes, such as a permission, of which nothing is remembered.
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
        del said["keep_aspect"]  # as it was before there was this one, so that caches stay
    content = json.dumps([VERSION, key, said, files])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:  # a dangling link: to be named with the others that cannot be read
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


Result = tuple[int, str | None, int, Size | None]  # which recording, why it is bad, how many values were cut, sensor


@dataclass(frozen=True)
class _Job:
    """Makes the frames of one recording at its place in the file."""

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
            raise  # nothing to be remembered of the file
        except Exception as error:  # what reads damaged bytes raises nearly anything
            if is_passing(error):
                raise explained(error, recording.path) from error
            return index, self._reason(recording, error), 0, None
        with self.path.open("r+b") as file:
            file.seek(index * math.prod(self.shape[1:]))
            file.write(np.ascontiguousarray(frames).data)
        return index, None, saturated, (events.height, events.width)

    def _reason(self, recording: Recording, error: Exception) -> str:
        """Why a recording is bad; the file by its name in the root, which may be spelled otherwise the next time."""
        reason = str(error)
        if not isinstance(error, UserError):
            what = error.strerror if isinstance(error, OSError) else None
            reason = f"{recording.path}: cannot be read: {what or f'{type(error).__name__}: {error}'}"
        return reason.removeprefix(f"{self.root}{os.sep}")


def _make(recordings: Sequence[Recording], job: _Job) -> dict[str, Any]:
    """Write the frames of all recordings; returns what else `Cached` has of them, as JSON holds it."""
    partial, done = job.path, job.path.with_suffix(".done")
    for left in {*partial.parent.glob("*.partial"), *partial.parent.glob("*.done")} - {partial, done}:
        left.unlink()  # of other settings: the lock says that nobody is at it
    results = _begun(partial, done, math.prod(job.shape))
    known = {index for index, *_ in results}
    left_over = [(index, recording) for index, recording in enumerate(recordings) if index not in known]
    try:
        with done.open("a") as log_file, results_of(job, left_over) as new:
            number = len(left_over)
            if is_first():
                new = shown(new, f"making frames of {number} recordings", number, from_number=1)
            for result in new:
                results.append(result)
                log_file.write(json.dumps(result) + "\n")
                log_file.flush()
    except KilledError as error:  # what was made is good
        at = ", ".join(str(left_over[index][1]) for index in error.at)
        why = f"while it read {at}: is that damaged (remove it), or did memory run out" if at else "did memory run out"
        raise ChildProcessError(
            f"frames: a process was killed {why}? What was made is kept, and the same command goes on from there"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            partial.unlink(missing_ok=True)
            done.unlink(missing_ok=True)
        raise
    partial.replace(partial.with_suffix(".frames"))
    done.unlink()
    bad = sorted((index, reason) for index, reason, *_ in results if reason is not None)
    sizes = Counter(tuple(size) for *_, size in results if size is not None)
    return {
        "bad": bad,
        "saturated": sum(cut for _, _, cut, _ in results),
        "sizes": [[*size, count] for size, count in sorted(sizes.items())],
    }


def _begun(partial: Path, done: Path, size: int) -> list[Result]:
    """What an earlier process wrote whole, and space for the rest."""
    try:
        if partial.stat().st_size == size:
            lines = done.read_text().split("\n")[:-1]  # the last one may be cut off
            return [(index, reason, cut, size) for index, reason, cut, size in map(json.loads, lines)]
    except (OSError, ValueError):
        pass
    done.unlink(missing_ok=True)
    with partial.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is known before the work
        except OSError:
            partial.unlink()
            raise
    return []
