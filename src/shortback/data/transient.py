"""Transient failures, which are not due to a file's content and so must not be cached as damage."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from shortback.errors import UserError

_TRANSIENT_ERRNOS = {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EBUSY),
    *(errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
    *(errno.ENOLCK, errno.ESHUTDOWN, errno.EREMOTEIO, errno.ECONNABORTED, errno.ECOMM),
}
_RUST = re.compile(r"\(os error (\d+)\)")  # the wording of Rust libraries, which set no errno


def is_transient(error: BaseException) -> bool:
    """Whether an error comes from the machine or a broken library, and can be fixed without touching the file.

    Errors that decoders raise on damaged bytes have no `errno`, or it is EINVAL.
    """
    if isinstance(error, ImportError | MemoryError):
        return True
    return isinstance(error, OSError | RuntimeError) and _number_of(error) in _TRANSIENT_ERRNOS


def explained(error: BaseException, path: str | Path) -> Exception:
    """Return an error to raise for a transient failure; its message names the file and the remedy."""
    if isinstance(error, ImportError):
        return UserError(f"{path}: a library that reads it cannot be loaded ({error}): install it again")
    is_memory = isinstance(error, MemoryError)
    why = "too little memory" if is_memory else getattr(error, "strerror", None) or str(error)
    return OSError(
        errno.ENOMEM if is_memory else _number_of(error),
        f"{path}: cannot be read now ({why}). The file is not recorded as damaged: fix the cause, or remove the file, "
        "and run the same command again to continue",
    )


def _number_of(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if number is None and (said := _RUST.search(str(error))):
        return int(said[1])
    return number
