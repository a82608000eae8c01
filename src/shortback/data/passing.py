"""Failures that are no fault of a file's bytes: what is remembered of a file must not hold them."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from shortback.errors import UserError

_OF_THE_MACHINE = {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EBUSY),
    *(errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}
_RUST = re.compile(r"\(os error (\d+)\)")  # as libraries in Rust say it, which set no errno


def is_passing(error: BaseException) -> bool:
    """Whether what a reader raised is of the machine or a broken library, and may be mended without the file.

    What decoders raise on damaged bytes has no number of the system, or one of a bad argument.
    """
    if isinstance(error, ImportError | MemoryError):
        return True
    return isinstance(error, OSError | RuntimeError) and _number_of(error) in _OF_THE_MACHINE


def explained(error: BaseException, path: str | Path) -> Exception:
    """A failure that is passing, with the file and what to do in its message."""
    if isinstance(error, ImportError):
        return UserError(f"{path}: a library that reads it cannot be loaded ({error}): install it again")
    is_memory = isinstance(error, MemoryError)
    why = "too little memory" if is_memory else getattr(error, "strerror", None) or str(error)
    return OSError(
        errno.ENOMEM if is_memory else _number_of(error),
        f"{path}: cannot be read now ({why}). That is not remembered of the file: mend it, or remove the file, and the "
        "same command goes on",
    )


def _number_of(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if number is None and (said := _RUST.search(str(error))):
        return int(said[1])
    return number
