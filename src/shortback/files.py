"""Write a file whole or not at all."""

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
    """A temporary file beside `path` to write, which takes its place, on the disk, if the block ends well.

    Whoever reads `path` meanwhile, or after a crash at any point, finds the old file or the new one.

    Args:
        keep_as: where the file at `path` is moved to.
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
    """Whether a path is named as those of `replacing` are, which one that is killed leaves behind."""
    return _TEMPORARY.match(path.name) is not None


@contextmanager
def full_disk_explained(what: str, folder: Path, *, instead: str) -> Iterator[None]:
    """Say of a disk that is full what could not be written in the block, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"the disk is full: {what} cannot be written in {folder}; {instead}") from error


def user_cache() -> Path:
    """The folder for what can be made again, as the user's system has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shortback"


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def check_folder(folder: Path, *, what: str) -> None:
    """See that files can be written into a folder, which is made: before hours of work and not after.

    Args:
        folder: made with its parents where it is not there.
        what: it is called in messages, e.g. `--out`.

    Raises:
        ValueError: they cannot, and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{what} {folder}: cannot be written to ({error.strerror})") from error
