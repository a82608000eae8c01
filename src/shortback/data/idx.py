"""The idx format of MNIST and its descendants: arrays of bytes behind a header of big-endian sizes."""

import gzip
import lzma
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from shortback.errors import UserError

# A path ending in one of these is read through its decompressor.
_READERS: dict[str, Callable[[Path], bytes]] = {
    ".gz": lambda path: gzip.decompress(path.read_bytes()),
    ".xz": lambda path: lzma.decompress(path.read_bytes()),
}
_UINT8 = 0x08


def read_idx(path: Path) -> Tensor:
    """Read a file of bytes, plain or compressed.

    Args:
        path: the file; a suffix .gz or .xz says how it is compressed.

    Returns:
        uint8, of the shape that the header gives.

    Raises:
        ValueError: if the file is damaged, or not of this format.
    """
    try:
        data = _READERS.get(path.suffix, Path.read_bytes)(path)
        zeros, kind, num_axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{num_axes}I", data, offset=4)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): get it anew") from error
    start = 4 + 4 * num_axes
    if zeros != 0 or kind != _UINT8:
        raise UserError(f"{path} is not an idx file of bytes: it begins with {data[:4].hex()}, not 0000 08..")
    if len(data) != start + math.prod(shape):
        raise UserError(f"{path} is damaged: its header promises {math.prod(shape)} bytes, {len(data) - start} follow")
    # A bytearray, because a tensor must be writable.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(shape)


def idx_bytes(values: Tensor) -> bytes:
    """The content of a plain file that `read_idx` reads as `values`, uint8 of any shape."""
    header = struct.pack(f">HBB{values.ndim}I", 0, _UINT8, values.ndim, *values.shape)
    return header + values.contiguous().numpy().tobytes()
