"""Pack a folder of images into shards."""

from __future__ import annotations

import hashlib
import io
import logging
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from shortback.data.image_folder import load_image_folder
from shortback.data.images import ImageSet, file_of
from shortback.data.progress import shown
from shortback.data.shards.index import INDEX, Index, Places, ShardFile, SplitShards, write_index, write_places
from shortback.errors import UserError
from shortback.files import full_disk_explained, replacing

SHARD_BYTES = 128 * 2**20
_SEED = 0  # of the order in which training images are packed
_SHOWN_FROM = 2_000  # images, from which progress is shown
log = logging.getLogger("shortback")


def pack_folder(root: str | Path, out: str | Path, *, shard_bytes: int = SHARD_BYTES, skip_bad: bool = False) -> Index:
    """Pack the image files in `root/train/<class>/` and `root/test/<class>/` into tar files, unchanged.

    Training images are packed in a random but fixed order, so that every shard holds images of all classes; test images
    in the order of the folder. The same folder gives the same bytes.

    Args:
        root: a folder as for `load_image_folder`, which checks every file first.
        out: a new or an empty folder.
        shard_bytes: least number of image bytes in a shard; the last shard may have fewer.
        skip_bad: leave out files that cannot be decoded.

    Raises:
        ValueError: `shard_bytes` is below 1, `out` has files in it, or `load_image_folder` raises it.
        OSError: a file cannot be read or written, for example because the disk is full.
    """
    if shard_bytes < 1:
        raise UserError(f"shards must have at least 1 byte, not {shard_bytes}")
    root, out = Path(root).expanduser(), Path(out)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} has files in it: name a folder that is new or empty")
    data = load_image_folder(root, skip_bad=skip_bad)
    out.mkdir(parents=True, exist_ok=True)
    orders = {
        "train": torch.randperm(len(data.train), generator=torch.Generator().manual_seed(_SEED)),
        "test": torch.arange(len(data.test)),
    }
    with full_disk_explained("shards", out, instead="free some space, or name a folder elsewhere"):
        splits = {}
        for name, images in (("train", data.train), ("test", data.test)):
            files = [_path_of(root, images, index) for index in orders[name].tolist()]
            splits[name] = _Packer(out, name).pack(files, images.labels[orders[name]].tolist(), shard_bytes)
        index = Index(data.name, data.classes, data.in_channels, data.image_size, data.mean, data.std, splits)
        write_index(out, index)  # last: without it, the folder is not one of shards
    log.info("packed into %s: see %s", out, out / INDEX)
    return index


class _Packer:
    """Writes the shards of a split, and records where each image is."""

    def __init__(self, out: Path, split: str) -> None:
        self.out = out
        self.split = split
        self.rows: list[tuple[int, int, int, int]] = []
        self.suffixes: list[str] = []
        self.shards: list[ShardFile] = []

    def pack(self, files: Sequence[Path], labels: Sequence[int], shard_bytes: int) -> SplitShards:
        left = shown(zip(files, labels, strict=True), f"packing {self.split}", len(files), from_number=_SHOWN_FROM)
        for number in _shares(files, shard_bytes):
            self._write_shard(islice(left, number))
        arrays = np.array(self.rows, dtype=np.int64).reshape(-1, 4).T
        shards, offsets, sizes, labels_ = (a.astype(t) for a, t in zip(arrays, "iqii", strict=True))
        name = f"{self.split}.npz"
        sha256 = write_places(self.out / name, Places(shards, offsets, sizes, labels_, np.array(self.suffixes)))
        return SplitShards(tuple(self.shards), name, sha256)

    def _write_shard(self, entries: Iterable[tuple[Path, int]]) -> None:
        path = self.out / f"{self.split}-{len(self.shards):05d}.tar"
        with replacing(path) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
                for file, label in entries:
                    self._add(tar, file, label)
            with temporary.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            self.shards.append(ShardFile(path.name, temporary.stat().st_size, digest))

    def _add(self, tar: tarfile.TarFile, file: Path, label: int) -> None:
        content, key, suffix = file.read_bytes(), f"{len(self.rows):08d}", _suffix_of(file)
        self.rows.append((len(self.shards), tar.offset + tarfile.BLOCKSIZE, len(content), label))
        self.suffixes.append(suffix)
        for name, part in ((key + suffix, content), (f"{key}.cls", str(label).encode())):
            member = tarfile.TarInfo(name)  # default owner, time and mode: the same bytes every time
            member.size = len(part)
            tar.addfile(member, io.BytesIO(part))


def _suffix_of(file: Path) -> str:
    """The suffix of an image in a shard: there, short, ASCII as names in a tar file are, and not that of the labels."""
    suffix = file.suffix.lower()
    return suffix if 1 < len(suffix) <= 16 and suffix.isascii() and suffix != ".cls" else ".image"


def _shares(files: Sequence[Path], shard_bytes: int) -> Iterator[int]:
    """Yield the number of files in each shard, in order."""
    number = size = 0
    for file in files:
        number, size = number + 1, size + file.stat().st_size
        if size >= shard_bytes:
            yield number
            number = size = 0
    if number:
        yield number


def _path_of(root: Path, images: ImageSet, index: int) -> Path:
    file = file_of(images, index)
    assert file is not None
    return root / file
