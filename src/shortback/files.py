"""Atomic writes, and checks that files can be written."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shortback.errors import UserError

_TEMPORARY = re.compile(r"^\..+\.\d+\.tmp$")


@contextmanager
def replacing(path: Path, *, keep_as: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`, whose file is synced to disk and replaces `path` if the block succeeds.

    A reader of `path`, also after a crash at any point, finds the old file or the new one; only with `keep_as` may
    there be none for the moment between the two moves, when the old file is at `keep_as`.

    Args:
        path: file to replace.
        keep_as: path to which the old file is moved; without it, the old file is overwritten.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            os.replace(path, keep_as)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Return whether a path is named like the temporary files of `replacing`, which a killed process leaves behind."""
    return _TEMPORARY.match(path.name) is not None


@contextmanager
def full_disk_explained(what: str, folder: Path, *, instead: str) -> Iterator[None]:
    """Explain the error of a full disk in the block: what could not be written, and what to do `instead`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"the disk is full: {what} cannot be written in {folder}; {instead}") from error


def user_cache() -> Path:
    """Return the folder for files that can be made again: in `XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shortback"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def check_folder(folder: Path, *, what: str) -> None:
    """Create a folder and check that files can be written to it, before hours of work and not after.

    Args:
        folder: created with its parents if it does not exist.
        what: name of the folder in messages, e.g. `--out`.

    Raises:
        ValueError: files cannot be written; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{what} {folder}: cannot be written to ({error.strerror})") from error
