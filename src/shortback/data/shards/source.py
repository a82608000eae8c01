"""Shards as a data source."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from shortback.data.images import ImageData
from shortback.data.order import SHARDS_MIXED
from shortback.data.shards.images import ShardImages
from shortback.data.shards.index import INDEX, Index, Places, SplitShards, read_places
from shortback.data.shards.store import FolderStore, Store, WebStore
from shortback.errors import UserError
from shortback.files import read_text, replacing, user_cache


def load_shards(
    root: str | Path | None = None,
    *,
    url: str | None = None,
    cache_dir: Path | None = None,
    cache_gb: float | None = None,
) -> ImageData:
    """Load images that `shortback data pack` has packed.

    Args:
        root: the folder of shards.
        url: address of the folder on a web server, instead of `root`; shards are copied when they are first read.
        cache_dir: folder for the copies; by default, in the user's cache.
        cache_gb: limit on the size of all copies, in 10^9 bytes; the least recently used go first. No limit by
            default.

    Raises:
        FileNotFoundError: `root` is not a folder of shards.
        ValueError: shards are missing or cut short (the first five are named); the index is damaged; the
            settings contradict each other; or the cache is too small to train from.
        OSError: the server does not deliver a file.
    """
    if (root is None) == (url is None):
        raise UserError("data of kind 'shards' need either root, a folder, or url, a folder on a web server")
    if url is None and (cache_dir is not None or cache_gb is not None):
        raise UserError("cache_dir and cache_gb are for copies of shards behind a url; leave them out for a folder")
    if url is not None:
        index, folder, store = _from_web(url, cache_dir, cache_gb)
    else:
        assert root is not None
        index, folder, store = _from_folder(Path(root).expanduser())
    train, test = (
        ShardImages(split, _places(folder, store, split), store, channels=index.channels)
        for split in (index.splits["train"], index.splits["test"])
    )
    return ImageData(
        name=index.name,
        classes=index.classes,
        train=train,
        test=test,
        mean=index.mean,
        std=index.std,
        in_channels=index.channels,
        image_size=index.image_size,
    )


def _from_folder(root: Path) -> tuple[Index, Path, Store]:
    path = root / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{root.absolute()} has no {INDEX}: it is not a folder of shards, or packing did not finish. "
            f"`shortback data pack FOLDER {root}` packs a folder of images"
        )
    index = Index.from_text(read_text(path), where=str(path))
    return index, root, FolderStore(root, index)


def _from_web(url: str, cache_dir: Path | None, cache_gb: float | None) -> tuple[Index, Path, Store]:
    url = url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UserError(f"url={url!r} must begin with http:// or https:// and a host")
    limit = None if cache_gb is None else round(cache_gb * 1e9)
    text = WebStore(url, Path()).read(INDEX).decode(errors="replace")
    index = Index.from_text(text, where=f"{url}/{INDEX}")
    # A folder for each content of the index: shards packed anew do not mix with copies of earlier ones.
    content = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = (cache_dir or user_cache() / "shards") / f"{Path(urlsplit(url).path).name or 'shards'}-{content}"
    largest = max(shard.size for split in index.splits.values() for shard in split.shards)
    if limit is not None and limit < (SHARDS_MIXED + 1) * largest:
        raise UserError(
            f"cache_gb={cache_gb} is too little: {SHARDS_MIXED} shards are read side by side, of up to "
            f"{largest / 1e9:.3g} GB; give at least {(SHARDS_MIXED + 1) * largest / 1e9:.3g}"
        )
    return index, folder, WebStore(url, folder, limit=limit)


def _places(folder: Path, store: Store, split: SplitShards) -> Places:
    path = folder / split.places
    if isinstance(store, WebStore) and not _is_good(path, split):
        os.makedirs(folder, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(store.read(split.places, sha256=split.sha256))
    return read_places(path, split)


def _is_good(path: Path, split: SplitShards) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == split.sha256
