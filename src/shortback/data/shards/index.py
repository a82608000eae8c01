"""The index of a folder of shards: `index.json`, and for each split an array file with the place of each image.

A shard is a tar file in WebDataset's convention, `00000042.jpg` and `00000042.cls` for an image and its label, so
WebDataset's tools read it too. The index adds what random access needs: shard, offset, size and label of each image.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from shortback.errors import UserError
from shortback.files import replacing, write_text

INDEX = "index.json"
_VERSION = 1


@dataclass(frozen=True)
class ShardFile:
    """A tar file: its name, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Places:
    """Where the images of a split lie, with one entry per image.

    Attributes:
        shards: number of the shard, int32 `[n]`.
        offsets: offset of the image in the shard, in bytes, int64 `[n]`.
        sizes: size in bytes, int32 `[n]`.
        labels: label, int32 `[n]`.
        suffixes: suffix of the file name in the shard, `.jpg` and the like, `[n]`.
    """

    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    suffixes: np.ndarray

    def name(self, index: int) -> str:
        """The file name of an image in its shard."""
        return f"{index:08d}{self.suffixes[index]}"


@dataclass(frozen=True)
class SplitShards:
    """A split: its shards in order, and the array file of its places with the SHA-256 of that file."""

    shards: tuple[ShardFile, ...]
    places: str
    sha256: str


@dataclass(frozen=True)
class Index:
    """The content of `index.json`, which describes a folder of shards.

    Attributes:
        name: name of the data.
        classes: a name for each label.
        channels: 1 for grey, 3 for RGB.
        image_size: side of the network's input, in pixels.
        mean: mean of each channel, in units of [0, 1].
        std: standard deviation, likewise.
        splits: `train` and `test`.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: Mapping[str, SplitShards]

    def to_text(self) -> str:
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1)

    @classmethod
    def from_text(cls, text: str, *, where: str) -> Index:
        """Read `index.json`.

        Raises:
            ValueError: the text is not an index, or an index of another version.
        """
        try:
            tree = json.loads(text)
            version = tree.pop("version")
            if version != _VERSION:
                raise UserError(f"{where} is of version {version}, but this shortback reads version {_VERSION}")
            splits = {
                name: SplitShards(
                    tuple(ShardFile(**shard) for shard in split["shards"]), split["places"], split["sha256"]
                )
                for name, split in tree.pop("splits").items()
            }
            tree |= {name: tuple(tree[name]) for name in ("classes", "mean", "std")}
            index = cls(**tree, splits=splits)
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where} is not an index of shards ({type(error).__name__}: {error})") from error
        if set(index.splits) != {"train", "test"}:
            raise UserError(f"{where} has the splits {', '.join(index.splits)} instead of train and test")
        for file in (file for split in index.splits.values() for file in (split.places, *split.shards)):
            name = file if isinstance(file, str) else file.name
            if Path(name).name != name:  # a path could lead out of the folder
                raise UserError(f"{where} names {name!r}, which is not the name of a file")
        return index


def write_places(path: Path, places: Places) -> str:
    """Write the array file of a split; returns its SHA-256."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(places))
    content = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_places(path: Path, split: SplitShards) -> Places:
    """Read the array file of a split, and check it against the index.

    Raises:
        ValueError: the file does not match the index.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != split.sha256:
        raise UserError(f"{path} does not match {INDEX}: copy or pack it again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Places(**{name: arrays[name] for name in arrays.files})


def write_index(folder: Path, index: Index) -> None:
    write_text(folder / INDEX, index.to_text())
