"""DVS128 Gesture (Amir et al., CVPR 2017): eleven gestures of 29 people."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np

from shortback.data.events.aedat3 import DVS128, read_aedat3
from shortback.data.events.archives import unpacked
from shortback.data.events.cache import Recording
from shortback.data.events.frames import Frames
from shortback.data.events.recording import Events
from shortback.data.events.source import Labelled, make_source
from shortback.data.images import ImageData
from shortback.errors import UserError
from shortback.files import read_text

ARCHIVE, MD5 = "DvsGesture.tar.gz", "8a5c71fb11e24e5ca5b11866ca6c00a1"
CLASSES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise"),
    *("left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures"),
)


def load_dvs_gesture(
    root: str | Path, *, frames: Frames, skip_bad: bool = False, cache_dir: Path | None = None
) -> ImageData:
    """Load the gestures of the official split, `trials_to_train.txt` and `trials_to_test.txt`.

    A file holds several gestures; `..._labels.csv` beside it lists their classes, beginnings and ends.

    Args:
        root: the folder that contains `DvsGesture`, or `DvsGesture.tar.gz` as downloaded.
        frames: how a gesture becomes frames.
        skip_bad: leave out gestures that cannot be read.
        cache_dir: where frames are cached, if not in `root`.

    Raises:
        FileNotFoundError: `root` contains neither, or a file on the lists is missing.
        UserError: the archive or other files cannot be read.
    """
    root = Path(root).expanduser()
    folder, archive = root / "DvsGesture", root / ARCHIVE
    if not folder.is_dir() and not archive.is_file():
        raise FileNotFoundError(
            f"DVS128 Gesture was not found: {root.absolute()} has neither a folder {folder.name} nor {ARCHIVE}"
        )
    unpacked(archive, folder, md5=MD5)
    (train, train_times), (test, test_times) = (
        _listed(folder, f"trials_to_{split}.txt") for split in ("train", "test")
    )
    times = hashlib.blake2b(repr([train_times, test_times]).encode(), digest_size=8).hexdigest()
    return make_source(
        "dvs_gesture",
        classes=CLASSES,
        train=train,
        test=test,
        read=_read,
        frames=frames,
        root=root,
        key=f"dvs_gesture {times}",
        skip_bad=skip_bad,
        cache_dir=cache_dir,
        sensor=DVS128,
    )


def _listed(folder: Path, name: str) -> tuple[Labelled, list[tuple[int, int]]]:
    """The gestures in the files on a list, and the time when each begins and ends."""
    trials = folder / name
    if not trials.is_file():
        raise FileNotFoundError(f"{folder} has no {name}, which is a part of the official split")
    part, times = Labelled([], []), []
    for line in read_text(trials).split():
        for row, (label, start, end) in enumerate(_gestures(folder / line)):
            part.recordings.append(Recording(folder / line, row))
            part.labels.append(label - 1)
            times.append((start, end))
    return part, times


def _gestures(path: Path) -> list[tuple[int, int, int]]:
    """The gestures of a file: class, counted from 1, and the microseconds when it begins and ends."""
    labels = path.with_name(f"{path.stem}_labels.csv")
    if not path.is_file() or not labels.is_file():
        raise FileNotFoundError(f"{path if not path.is_file() else labels} is missing")
    try:
        rows = np.loadtxt(labels, dtype=np.int64, delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise UserError(f"{labels}: {error}") from None
    if rows.shape[1] != 3 or not ((rows[:, 0] >= 1) & (rows[:, 0] <= len(CLASSES))).all():
        raise UserError(f"{labels}: must have lines of class (1 to {len(CLASSES)}), start and end")
    return [(int(label), int(start), int(end)) for label, start, end in rows]


def _read(recording: Recording) -> Events:
    _, start, end = _gestures(recording.path)[recording.part]
    whole = _whole(recording.path)
    begin, stop = np.searchsorted(whole.t, [start, end])
    part = slice(int(begin), int(stop))
    name = f"{recording.path}, gesture {recording.part + 1}"
    height, width = DVS128
    return Events.checked(
        t=whole.t[part], x=whole.x[part], y=whole.y[part], on=whole.on[part], height=height, width=width, name=name
    )


@functools.lru_cache(maxsize=1)
def _whole(path: Path) -> Events:
    return read_aedat3(path)
