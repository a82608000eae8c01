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
from rich.progress import track
from torch import Tensor

from shortback.allocator import keep_freed_memory
from shortback.data.events.frames import Frames, to_frames
from shortback.data.events.recording import Events
from shortback.errors import UserError
from shortback.files import full_disk_explained, replacing, write_text
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
    names, sizes and times of the files; it is whole or not there.

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
        explained = full_disk_explained("frames", folder, instead="free some space, or ask for smaller frames")
        with explained, replacing(folder / f"{name}.frames") as path:
            bad, saturated = _make(recordings, read, settings, path, shape)
        write_text(folder / f"{name}.json", json.dumps({"bad": bad, "saturated": saturated}))  # last: it makes it valid
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


def _make(
    recordings: Sequence[Recording], read: Read, settings: Frames, path: Path, shape: tuple[int, ...]
) -> tuple[list[tuple[int, str]], int]:
    """Write the frames of all recordings; returns the bad ones and how many values were cut."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape))  # a full disk is known before the work
    job = _Job(read, settings, path, shape)
    bad, saturated = [], 0
    with _results(job, recordings) as results:
        shown = track(results, f"making frames of {len(recordings)} recordings", total=len(recordings), transient=True)
        for index, reason, cut in shown if is_first() else results:
            saturated += cut
            if reason is not None:
                bad.append((index, reason))
    return sorted(bad), saturated


@dataclass(frozen=True)
class _Job:
    """Makes the frames of one recording at its place in the file."""

    read: Read
    settings: Frames
    path: Path
    shape: tuple[int, ...]

    def __call__(self, numbered: tuple[int, Recording]) -> tuple[int, str | None, int]:
        """The index of a recording, why it is bad, and how many values were cut."""
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
def _results(job: _Job, recordings: Sequence[Recording]) -> Iterator[Iterator[tuple[int, str | None, int]]]:
    """What comes of all recordings, in any order, by all cores where it is worth it and processes can be forked."""
    workers = min(num_cores(), len(recordings) // WORTH_PROCESSES + 1)
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        keep_freed_memory()
        yield map(job, enumerate(recordings))
        return
    with multiprocessing.get_context("fork").Pool(workers, initializer=keep_freed_memory) as pool:
        yield pool.imap_unordered(job, enumerate(recordings), chunksize=16)
