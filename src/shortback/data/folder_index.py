"""Lists the files of a split of an image folder; long lists are cached and validated by folder timestamps alone.

Listing a million files and their sizes takes minutes on a network disk. A folder's modification time changes whenever a
file is added, removed or renamed in it, so a cached list holds as long as no listed folder's time has changed. A file
rewritten in place goes unnoticed; splits of fewer than `REMEMBER_FROM` files are listed anew each time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shortback.data.packed import PackedStrings
from shortback.errors import UserError
from shortback.files import replacing
from shortback.words import quantity

REMEMBER_FROM = 50_000
_SETTLED_NS = 2_000_000_000  # a folder modified more recently may change again within one tick of a coarse clock
_VERSION = 2
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split, class by class.

    Attributes:
        files: paths relative to the root.
        stats: int64 `[n, 2]`, size in bytes and modification time in nanoseconds of each file; -1 where unknown.
        labels: int64 `[n]`.
    """

    files: PackedStrings
    stats: np.ndarray
    labels: np.ndarray


def list_split(root: Path, name: str, classes: Sequence[str], *, caches: Sequence[Path]) -> SplitFiles:
    """List the files in `root/name/<class>/`, at any depth, sorted by name; hidden files and folders are ignored.

    Args:
        root: the data folder.
        name: the split's folder, such as `train`.
        classes: class names in label order; a class without a folder has no files.
        caches: folders to look for a cached list in; a long list is saved in the first that is writable.

    Raises:
        ValueError: if class folders are empty.
    """
    file = f"index-{name}.npz"
    for cache in caches:
        if (remembered := _read(cache / file, root, classes)) is not None:
            return remembered
    began = time.time_ns()
    walk = _Walk(len(str(root / name)) - len(name))  # without the root, which is empty for "."
    walk.note(str(root / name))  # a class that had no folder may get one
    empty = []
    for label, class_name in enumerate(classes):
        folder = root / name / class_name
        if not folder.is_dir():
            continue
        before = len(walk.files)
        walk.into(str(folder))
        walk.labels += [label] * (len(walk.files) - before)
        if len(walk.files) == before:
            empty.append(class_name)
    if empty:
        shown = ", ".join(map(repr, empty[:10])) + (f" and {len(empty) - 10} more" if len(empty) > 10 else "")
        raise UserError(
            f"{root / name} has {quantity(len(empty), 'empty class', 'empty classes')}: {shown}. Put images into their "
            "folders, or remove the folders"
        )
    found = SplitFiles(
        PackedStrings.of(walk.files),
        np.array(walk.stats, dtype=np.int64).reshape(-1, 2),
        np.array(walk.labels, dtype=np.int64),
    )
    settled = not walk.folders or max(walk.folders.values()) < began - _SETTLED_NS
    if len(found.files) >= REMEMBER_FROM and settled:
        remember(found, classes, walk.folders, caches, file)
    return found


def remember(
    found: SplitFiles, classes: Sequence[str], folders: dict[str, int], caches: Sequence[Path], file: str
) -> None:
    """Save a list in the first writable cache folder; if there is none, the files are listed again next time.

    Args:
        folders: modification time in nanoseconds of each listed folder, keyed by its path relative to the root.
    """
    names, names_of_folders = PackedStrings.of(classes), PackedStrings.of(folders)
    content = {
        "version": np.array(_VERSION),
        "text": found.files.text,
        "bounds": found.files.bounds,
        "stats": found.stats,
        "labels": found.labels,
        "classes": names.text,
        "class_bounds": names.bounds,
        "folders": names_of_folders.text,
        "folder_bounds": names_of_folders.bounds,
        "folder_times": np.array(list(folders.values()), dtype=np.int64),
    }
    for cache in caches:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with replacing(cache / file) as path, path.open("wb") as opened:
                np.savez(opened, **content)
            return
        except OSError as error:
            _logger.info("the list of files cannot be saved in %s: %s", cache, error)


def _read(file: Path, root: Path, classes: Sequence[str]) -> SplitFiles | None:
    """Read a cached list; None if there is none or it is outdated."""
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as content:
            if int(content["version"]) != _VERSION:
                return None
            if list(PackedStrings(content["classes"], content["class_bounds"])) != list(classes):
                return None
            folders = PackedStrings(content["folders"], content["folder_bounds"])
            for folder, then in zip(folders, content["folder_times"].tolist(), strict=True):
                if os.stat(os.path.join(root, folder)).st_mtime_ns != then:
                    return None
            files = PackedStrings(content["text"], content["bounds"])
            return SplitFiles(files, content["stats"], content["labels"])
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy raises many types on damaged files
        _logger.warning("%s cannot be read (%s); the files are listed again", file, error)
        return None


class _Walk:
    """Collects the files and folders found; paths omit their first `prefix` characters, the root."""

    def __init__(self, prefix: int) -> None:
        self.prefix = prefix
        self.files: list[str] = []
        self.stats: list[tuple[int, int]] = []
        self.labels: list[int] = []
        self.folders: dict[str, int] = {}

    def note(self, folder: str) -> None:
        """Record the time of a folder, which must be done before its content is listed."""
        self.folders[folder[self.prefix :]] = os.stat(folder).st_mtime_ns

    def into(self, folder: str, within: tuple[str, ...] = ()) -> None:
        """Collect what is in a folder; links that lead back to a folder on the way here, `within`, are left out."""
        self.note(folder)
        within = (*within, os.path.realpath(folder))
        for entry in visible(folder):
            if is_folder(entry):
                if os.path.realpath(entry.path) not in within:
                    self.into(entry.path, within)
            else:
                self.files.append(entry.path[self.prefix :])
                self.stats.append(_stats(entry))


def visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(seen, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to one; a link to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _stats(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        stat = entry.stat()
    except OSError:  # a dangling link: reported later with the other unreadable files
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
