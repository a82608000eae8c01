"""The frames of many recordings, made once by all cores and mapped from one file from then on."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from shortback.allocator import keep_freed_memory
from shortback.data.events.frames import Frames, to_frames
from shortback.data.events.recording import Events
from shortback.data.progress import shown
from shortback.errors import UserError
from shortback.files import full_disk_explained, write_text
from shortback.processes import is_first, num_cores

VERSION = 1  # to be raised whenever the meaning of the files changes
WORTH_PROCESSES = 64  # recordings below which one process does

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
    """

    frames: Tensor
    bad: list[tuple[int, str]]
    saturated: int


def cached_frames(recordings: Sequence[Recording], read: Read, settings: Frames, *, folder: Path, key: str) -> Cached:
    """The frames of recordings, from the cache or made anew.

    Of processes that ask at once, one makes them and the others wait. A cache is known by its settings and by the
    names, sizes and times of the files; it is whole or not there, and one that was stopped half made goes on.

    Args:
        recordings: in the order of the samples.
        read: reads one of them; raises `UserError` for one that is damaged.
        folder: for the cache, where it can be written.
        key: what `read` does, beside the files.

    Raises:
        OSError: the cache cannot be written, a full disk among the reasons.
    """
    name = _fingerprint(recordings, settings, key)
    shape = (len(recordings), settings.num_steps * 2, settings.size, settings.size)
    if found := _open(folder, name, shape):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "frames.lock"):
        if found := _open(folder, name, shape):
            return found
        with full_disk_explained("frames", folder, instead="free some space, or ask for smaller frames"):
            bad, saturated = _make(recordings, read, settings, folder / f"{name}.frames", shape)
            made = json.dumps({"bad": bad, "saturated": saturated})
            write_text(folder / f"{name}.json", made)  # last: it makes the cache valid
        found = _open(folder, name, shape)
    if found is None:
        raise OSError(f"the cache in {folder} is not what was just written to it: is the disk damaged?")
    return found


def _fingerprint(recordings: Sequence[Recording], settings: Frames, key: str) -> str:
    stats = {path: path.stat() for path in {recording.path for recording in recordings}}
    files = [(str(r.path), r.part, stats[r.path].st_size, stats[r.path].st_mtime_ns) for r in recordings]
    content = json.dumps([VERSION, key, asdict(settings), files])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _open(folder: Path, name: str, shape: tuple[int, ...]) -> Cached | None:
    path, size = folder / f"{name}.frames", math.prod(shape)
    try:
        known = json.loads((folder / f"{name}.json").read_text())
        if path.stat().st_size != size:
            return None
        frames = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shape)
        return Cached(frames, [(index, reason) for index, reason in known["bad"]], known["saturated"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the cache in %s cannot be read (%s); it is made again", folder, error)
        return None


Result = tuple[int, str | None, int]  # the index of a recording, why it is bad, and how many values were cut


def _make(
    recordings: Sequence[Recording], read: Read, settings: Frames, path: Path, shape: tuple[int, ...]
) -> tuple[list[tuple[int, str]], int]:
    """Write the frames of all recordings; returns the bad ones and how many values were cut."""
    partial, done = path.with_suffix(".partial"), path.with_suffix(".done")
    for left in {*path.parent.glob("*.partial"), *path.parent.glob("*.done")} - {partial, done}:
        left.unlink()  # of other settings: the lock says that nobody is at it
    results = _begun(partial, done, math.prod(shape))
    known = {index for index, _, _ in results}
    left_over = [(index, recording) for index, recording in enumerate(recordings) if index not in known]
    try:
        with done.open("a") as log_file, _results(_Job(read, settings, partial, shape), left_over) as new:
            number = len(left_over)
            if is_first():
                new = shown(new, f"making frames of {number} recordings", number, from_number=1)
            for result in new:
                results.append(result)
                log_file.write(json.dumps(result) + "\n")
                log_file.flush()
    except OSError:
        partial.unlink(missing_ok=True)
        done.unlink(missing_ok=True)
        raise
    partial.replace(path)
    done.unlink()
    bad = sorted((index, reason) for index, reason, _ in results if reason is not None)
    return bad, sum(cut for _, _, cut in results)


def _begun(partial: Path, done: Path, size: int) -> list[Result]:
    """What an earlier process wrote whole, and space for the rest."""
    try:
        if partial.stat().st_size == size:
            lines = done.read_text().split("\n")[:-1]  # the last one may be cut off
            return [(index, reason, cut) for index, reason, cut in map(json.loads, lines)]
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


@dataclass(frozen=True)
class _Job:
    """Makes the frames of one recording at its place in the file."""

    read: Read
    settings: Frames
    path: Path
    shape: tuple[int, ...]

    def __call__(self, numbered: tuple[int, Recording]) -> Result:
        index, recording = numbered
        try:
            frames, saturated = to_frames(self.read(recording), self.settings)
        except (UserError, OSError) as error:
            return index, str(error), 0
        with self.path.open("r+b") as file:
            file.seek(index * math.prod(self.shape[1:]))
            file.write(np.ascontiguousarray(frames).data)
        return index, None, saturated


@contextmanager
def _results(job: _Job, recordings: Sequence[tuple[int, Recording]]) -> Iterator[Iterator[Result]]:
    """What comes of all recordings, in any order, by all cores where it is worth it and processes can be forked."""
    workers = min(num_cores(), len(recordings) // WORTH_PROCESSES + 1)
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        keep_freed_memory()
        yield map(job, recordings)
        return
    with multiprocessing.get_context("fork").Pool(workers, initializer=keep_freed_memory) as pool:
        yield pool.imap_unordered(job, recordings, chunksize=16)
