"""Where what was found out about a folder of data is remembered."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from shortback.files import user_cache


def cache_folders(root: Path, cache_dir: Path | None) -> list[Path]:
    """Where things of a folder may be remembered, the best place first."""
    own_name = f"{root.name}-{hashlib.blake2b(os.fsencode(root.resolve()), digest_size=6).hexdigest()}"
    if cache_dir is not None:
        return [cache_dir / own_name]
    return [root / ".shortback-cache", user_cache() / own_name]


def first_writable(folders: Sequence[Path], *, what: str) -> Path:
    """The first of some folders that can be written, which is made.

    Args:
        what: is to be remembered in it, e.g. `the images of data/pets`.

    Raises:
        OSError: none can.
    """
    found = next(filter(_is_writable, folders), None)
    if found is None:
        raise OSError(
            f"{what} cannot be cached: none of {', '.join(map(str, folders))} can be written; "
            f"give a folder that can be with cache_dir"
        )
    return found


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
