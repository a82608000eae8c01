"""Let only one process, or one group of processes, train in a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shortback.errors import UserError
from shortback.files import check_folder
from shortback.processes import is_first

PATIENCE = 3.0  # seconds, in which a run being stopped can write its checkpoint


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, created if missing, against other runs within the block.

    The operating system releases the lock if the process dies.

    Raises:
        ValueError: another process is training there, or the folder cannot be written to.
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
