"""Stores from which shards are read: a folder, or local copies of the files on a web server."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock

from shortback.data.order import SHARDS_MIXED
from shortback.data.shards.index import INDEX, Index, ShardFile
from shortback.errors import UserError
from shortback.files import full_disk_explained, replacing

ATTEMPTS = 4
READ_TIMEOUT = 30.0  # seconds without a byte, after which a request is repeated
_SLOW = 60.0  # seconds after which a shard that is still being copied is logged, again and again
_BLOCK = 2**20
log = logging.getLogger("shortback")
_Taken = TypeVar("_Taken")


class Store(Protocol):
    """Opens each shard as a file.

    Attributes:
        limit: total bytes of copies, beyond which the least recently used are removed; None keeps all.
    """

    limit: int | None

    def open(self, shard: ShardFile) -> int:
        """Return a descriptor to read the shard; it stays valid, and takes up space, if the file is removed."""
        ...

    def ahead(self, size: int) -> int:
        """The number of shards of `size` bytes that are worth opening before they are read."""
        ...


class FolderStore:
    """Shards in a folder, which must contain all of them.

    Raises:
        ValueError: some are missing, or differ in size from the index; the message names the first five.
    """

    limit: int | None = None

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        wrong = []
        for shard in (shard for split in index.splits.values() for shard in split.shards):
            path = folder / shard.name
            size = path.stat().st_size if path.is_file() else None
            if size != shard.size:
                wrong.append(f"{shard.name} {'is missing' if size is None else f'has {size} of {shard.size} bytes'}")
        if wrong:
            more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise UserError(f"the shards in {folder} are not complete: {', '.join(wrong[:5])}{more}; copy them again")

    def open(self, shard: ShardFile) -> int:
        return os.open(self.folder / shard.name, os.O_RDONLY)

    def ahead(self, size: int) -> int:
        return 0


class WebStore:
    """Shards that are copied from a web server when first read, and checked against the index.

    If several processes want the same shard at once, even on machines that share the folder, one of them copies it. A
    copy is complete or absent.

    Args:
        url: address of the folder, without a slash at its end.
        folder: folder for the copies.
        limit: total bytes of copies; the least recently used are removed for new ones. None: no limit.
        silence: seconds without a byte after which a request is repeated.
    """

    def __init__(self, url: str, folder: Path, *, limit: int | None = None, silence: float = READ_TIMEOUT) -> None:
        self.url = url
        self.folder = folder
        self.limit = limit
        self.silence = silence

    def open(self, shard: ShardFile) -> int:
        """Open a shard, copying it first if it is not there.

        Raises:
            OSError: the shard cannot be fetched; the message has its URL and the reason.
        """
        path = self.folder / shard.name
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self._copy(shard, path)  # another process may remove the copy at once, to make room
            else:
                if self.limit is not None:
                    os.utime(descriptor)
                return descriptor

    def ahead(self, size: int) -> int:
        """As many shards as are read side by side, or fewer if there is no room for so many more."""
        if self.limit is None:
            return SHARDS_MIXED
        return min(max(self.limit // size - SHARDS_MIXED, 0), SHARDS_MIXED)

    def read(self, name: str, *, sha256: str | None = None) -> bytes:
        """Fetch a small file without storing it.

        Args:
            sha256: SHA-256 of the file, if known; on a mismatch the request is repeated.

        Raises:
            OSError: the file cannot be fetched; the message has its URL and the reason.
        """

        def take(answer: http.client.HTTPResponse) -> bytes:
            with _network_errors():
                content = answer.read()
            if sha256 is not None:
                _check_digest(hashlib.sha256(content).hexdigest(), sha256)
            return content

        return _asked(f"{self.url}/{name}", take, silence=self.silence)

    def _copy(self, shard: ShardFile, path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(path.with_name(f".{path.name}.lock")),
            full_disk_explained(
                f"the copy of {shard.name}", self.folder, instead="free some space, or set data.cache_gb"
            ),
        ):
            if path.exists():
                return
            for left in self.folder.glob(f".{path.name}.*.tmp"):  # by a killed process, since the lock is ours
                left.unlink(missing_ok=True)
            self._make_room(shard.size)
            with replacing(path) as temporary:
                _asked(f"{self.url}/{shard.name}", lambda answer: _save(answer, shard, temporary), silence=self.silence)

    def _make_room(self, size: int) -> None:
        if self.limit is None:
            return
        with FileLock(self.folder / ".room.lock"):
            copies = sorted(
                ((stat.st_mtime, stat.st_size, path) for path in self.folder.glob("*.tar") if (stat := _stat(path))),
            )
            room = self.limit - sum(taken for _, taken, _ in copies)
            for _, freed, path in copies:
                if room >= size:
                    return
                path.unlink(missing_ok=True)
                room += freed


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _save(answer: http.client.HTTPResponse, shard: ShardFile, path: Path) -> None:
    digest, size, began, said = hashlib.sha256(), 0, time.monotonic(), 0
    with path.open("wb") as file:
        while block := _block_of(answer):
            file.write(block)
            digest.update(block)
            size += len(block)
            if (waited := time.monotonic() - began) > _SLOW * (said + 1):
                said = int(waited // _SLOW)
                log.warning("%s: %.0f of %.0f MB in %.0f s", shard.name, size / 1e6, shard.size / 1e6, waited)
    if size != shard.size:
        raise _ServerError(f"it ended after {size} of {shard.size} bytes")
    _check_digest(digest.hexdigest(), shard.sha256)


def _block_of(answer: http.client.HTTPResponse) -> bytes:
    with _network_errors():
        return answer.read(_BLOCK)


def _check_digest(found: str, expected: str) -> None:
    if found != expected:
        raise _ServerError(f"its SHA-256 differs from the one in {INDEX}")


class _ServerError(Exception):
    """A fault of the server, its answer or the network, which may pass: the request is repeated."""


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turn network errors, whatever their number, into `_ServerError`, to tell them from errors of the local disk."""
    try:
        yield
    except (TimeoutError, urllib.error.HTTPError):
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _ServerError(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _asked(url: str, take: Callable[[http.client.HTTPResponse], _Taken], *, silence: float) -> _Taken:
    """Request `url` up to `ATTEMPTS` times and return `take(answer)`; errors of the local disk pass through."""
    reason = ""
    for attempt in range(ATTEMPTS):
        try:
            with _network_errors():
                answer = urllib.request.urlopen(url, timeout=silence)
            with answer:
                return take(answer)
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            if error.code < 500:
                raise OSError(f"{url} cannot be fetched: {reason}") from error
        except TimeoutError:
            reason = f"no byte for {silence:.0f} s"
        except _ServerError as error:
            reason = str(error)
        if attempt + 1 < ATTEMPTS:
            log.warning("%s: %s; trying again", url, reason)
            time.sleep(2**attempt / 2)
    raise OSError(f"{url} cannot be fetched: {reason}, in each of {ATTEMPTS} attempts")
