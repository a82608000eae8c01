"""One process, or one group of them, trains in a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shortback.errors import UserError
from shortback.files import check_folder
from shortback.processes import is_first

PATIENCE = 3.0  # seconds, in which one that was told to stop writes its checkpoint


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep others from training in a folder, which is made, within the block; the system ends it with the process.

    Raises:
        ValueError: another trains there, or the folder cannot be written to.
    """
    if not is_first():
        yield
        return
    check_folder(folder, what="the folder")
    lock = FileLock(folder / ".lock", timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is training in {folder}: wait for it, or name another folder") from None
    try:
        yield
    finally:
        lock.release()
