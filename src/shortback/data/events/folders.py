"""Recordings in one folder per class: N-MNIST and N-Caltech101."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from shortback.data.events.archives import unpacked
from shortback.data.events.cache import Recording
from shortback.data.events.formats import READERS, TO_NPZ
from shortback.data.events.frames import Frames
from shortback.data.events.nmnist import read_nmnist
from shortback.data.events.recording import Events
from shortback.data.events.source import Labelled, make_source
from shortback.data.folder_index import is_file, is_folder, visible
from shortback.data.images import ImageData
from shortback.errors import UserError
from shortback.words import quantity

NMNIST_MD5 = {"Train": "20959b8e626244a1b502305a9e6e2031", "Test": "69ca8762b2fe404d9b9bad1103e97832"}
NMNIST_SENSOR = (34, 34)  # height and width
CALTECH101 = "Caltech101"
CALTECH101_SENSOR = (180, 240)
CALTECH101_MD5 = "66201824eabb0239c7ab992480b50ba3"


def load_nmnist(
    root: str | Path, *, frames: Frames, skip_bad: bool = False, cache_dir: Path | None = None
) -> ImageData:
    """Load N-MNIST (Orchard et al., 2015): 60,000 and 10,000 recordings of digits, 34 x 34, some 300 ms each.

    Args:
        root: the folder that contains `Train` and `Test`, or `Train.zip` and `Test.zip` as downloaded.
        frames: how a recording becomes frames.
        skip_bad: leave out recordings that cannot be read.
        cache_dir: where frames are cached, if not in `root`.

    Raises:
        FileNotFoundError: `root` contains neither.
        UserError: an archive is damaged, or recordings cannot be read.
    """
    root, classes = Path(root).expanduser(), [str(digit) for digit in range(10)]
    parts = []
    for split, md5 in NMNIST_MD5.items():
        folder, archive = root / split, root / f"{split}.zip"
        if not folder.is_dir() and not archive.is_file():
            raise FileNotFoundError(
                f"N-MNIST was not found: {root.absolute()} has neither a folder {split} nor {archive.name}"
            )
        parts.append(labelled(unpacked(archive, folder, md5=md5), classes))
    return make_source(
        "nmnist",
        classes=classes,
        train=parts[0],
        test=parts[1],
        read=_read_nmnist,
        frames=frames,
        root=root,
        key="nmnist",
        skip_bad=skip_bad,
        cache_dir=cache_dir,
        sensor=NMNIST_SENSOR,
    )


def load_ncaltech101(
    root: str | Path, *, frames: Frames, skip_bad: bool = False, cache_dir: Path | None = None
) -> ImageData:
    """Load N-Caltech101 (Orchard et al., 2015): 8,709 recordings of 101 classes, 180 x 240, without bounding boxes.

    There is no official split: a fifth of each class, drawn with a fixed seed, is for testing.

    Args:
        root: the folder that contains `Caltech101`, or `Caltech101.zip` as downloaded.
        frames: how a recording becomes frames.
        skip_bad: leave out recordings that cannot be read.
        cache_dir: where frames are cached, if not in `root`.

    Raises:
        FileNotFoundError: `root` contains neither.
        UserError: the archive is damaged, or recordings cannot be read.
    """
    root = Path(root).expanduser()
    folder, archive = root / CALTECH101, root / f"{CALTECH101}.zip"
    if not folder.is_dir() and not archive.is_file():
        raise FileNotFoundError(
            f"N-Caltech101 was not found: {root.absolute()} has neither {folder.name} nor {archive.name}"
        )
    classes = class_names(unpacked(archive, folder, md5=CALTECH101_MD5))
    found = [(Recording(path), label) for label, name in enumerate(classes) for path in files_in(folder / name)]
    train, test = split_by_fifths(Labelled([recording for recording, _ in found], [label for _, label in found]))
    return make_source(
        "ncaltech101",
        classes=classes,
        train=train,
        test=test,
        read=_read_ncaltech101,
        frames=frames,
        root=root,
        key="ncaltech101",
        skip_bad=skip_bad,
        cache_dir=cache_dir,
        split="fifth",
        sensor=CALTECH101_SENSOR,
    )


def _read_nmnist(recording: Recording) -> Events:
    return read_nmnist(recording.path)


def _read_ncaltech101(recording: Recording) -> Events:
    height, width = CALTECH101_SENSOR
    return read_nmnist(recording.path, height=height, width=width)


def class_names(folder: Path) -> list[str]:
    """The names of the folders in `folder` that are not hidden, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_in(folder: Path, within: tuple[Path, ...] = ()) -> list[Path]:
    """The files in a folder, at any depth, that are neither hidden nor in a hidden folder, sorted.

    Broken links are included, to be reported with the other unreadable files; pipes and the like are not. Links to
    folders are followed, except those to a folder that contains them.

    Args:
        within: the folders above this one, with links resolved.
    """
    found, within = [], (*within, folder.resolve())
    for entry in visible(folder):
        path = Path(entry)
        if is_folder(entry):
            found += [] if path.resolve() in within else files_in(path, within)
        elif is_file(entry) or not path.exists():
            found.append(path)
    return sorted(found)


def split_by_fifths(recordings: Labelled) -> tuple[Labelled, Labelled]:
    """Split into training and test: a fifth of each class, at least one, drawn with a fixed seed, is for testing."""
    train, test = Labelled([], []), Labelled([], [])
    by_class: dict[int, list[Recording]] = {}
    for recording, label in zip(recordings.recordings, recordings.labels, strict=True):
        by_class.setdefault(label, []).append(recording)
    for label, those in by_class.items():
        order = torch.randperm(len(those), generator=torch.Generator().manual_seed(0)).tolist()
        held_out = set(order[: max(1, len(those) // 5)])
        for index, recording in enumerate(those):
            part = test if index in held_out else train
            part.recordings.append(recording)
            part.labels.append(label)
    return train, test


def labelled(folder: Path, classes: Sequence[str]) -> Labelled:
    """The recordings in the folders of the given classes; a class without a folder has none.

    Raises:
        UserError: a file does not have the ending of a recording.
    """
    part = Labelled([], [])
    strange = []
    for label, name in enumerate(classes):
        for path in files_in(folder / name) if (folder / name).is_dir() else ():
            if path.suffix.lower() in READERS:
                part.recordings.append(Recording(path))
                part.labels.append(label)
            else:
                strange.append(path)
    if strange:
        raise UserError(
            f"{quantity(len(strange), 'file does', 'files do')} not end like recordings in {folder}, for example "
            f"{strange[0].relative_to(folder)}: known are {', '.join(READERS)}. "
            f"For images use data.kind=image_folder. {TO_NPZ}"
        )
    return part
