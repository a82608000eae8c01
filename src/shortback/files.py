"""Atomic writes, and checks that files can be written."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shortback.errors import UserError

_TEMPORARY = re.compile(r"^\..+\.\d+\.tmp$")


@contextmanager
def replacing(path: Path, *, keep_as: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`, whose file is synced to disk and replaces `path` if the block succeeds.

    A reader of `path`, even after a crash, finds the old file or the new one; only with `keep_as` may `path` be
    missing for a moment between the two moves, while the old file is at `keep_as`.

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
    """Write a text file atomically, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: Path) -> str:
    """Read a text file of the user's, in UTF-8.

    Raises:
        ValueError: it is in another encoding, or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8") from None


def read_json(path: Path, *, instead: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: the file.
        instead: what to do if it is damaged, for the message.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {instead}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (not a JSON object): {instead}")
    return content


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
