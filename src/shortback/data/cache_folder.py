"""Cache folders for information derived from a data folder."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from shortback.files import user_cache


def cache_folders(root: Path, cache_dir: Path | None) -> list[Path]:
    """Return the candidate cache folders for the data folder `root`, the preferred one first."""
    own_name = f"{root.name}-{hashlib.blake2b(os.fsencode(root.resolve()), digest_size=6).hexdigest()}"
    if cache_dir is not None:
        return [cache_dir / own_name]
    return [root / ".shortback-cache", user_cache() / own_name]


def first_writable(folders: Sequence[Path], *, what: str) -> Path:
    """Create and return the first of `folders` that is writable.

    Args:
        folders: candidates, the preferred one first.
        what: what is to be cached, for the error message, e.g. `the images of data/pets`.

    Raises:
        OSError: if no folder is writable.
    """
    found = next(filter(_is_writable, folders), None)
    if found is None:
        raise OSError(
            f"{what} cannot be cached: none of {', '.join(map(str, folders))} is writable; "
            f"set cache_dir to a writable folder"
        )
    return found


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
