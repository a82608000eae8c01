"""Unpack downloaded archives, once."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from pathlib import Path

from filelock import FileLock

from shortback.errors import UserError


def unpacked(archive: Path, folder: Path, *, md5: str | None = None) -> Path:
    """Unpack an archive into `folder`, completely or not at all, unless the folder exists; return the folder.

    Args:
        archive: a zip or tar file.
        folder: the folder for its content; if the archive holds a single folder, for the content of that.
        md5: MD5 of the archive, if known.

    Raises:
        UserError: the archive is damaged, or has another MD5.
        OSError: the archive cannot be unpacked there.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return folder
        if md5 is not None and (found := _md5(archive)) != md5:
            raise UserError(f"{archive} is damaged, or another file: its MD5 is {found}, but should be {md5}")
        aside = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            _extract(archive, aside)
            entries = list(aside.iterdir())
            inner = entries[0] if len(entries) == 1 and entries[0].is_dir() else aside
            inner.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _extract(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)
        else:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}") from None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
