"""The idx format of MNIST and its descendants: a header of big-endian sizes, then an array of bytes."""

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

# Decompressors by file suffix.
_READERS: dict[str, Callable[[Path], bytes]] = {
    ".gz": lambda path: gzip.decompress(path.read_bytes()),
    ".xz": lambda path: lzma.decompress(path.read_bytes()),
}
_UINT8 = 0x08


def read_idx(path: Path) -> Tensor:
    """Read an idx file of bytes, plain or compressed.

    Args:
        path: the file; a suffix .gz or .xz marks a compressed one.

    Returns:
        uint8, with the shape given in the header.

    Raises:
        ValueError: if the file is damaged, is not an idx file of bytes, or holds no value.
    """
    try:
        data = _READERS.get(path.suffix, Path.read_bytes)(path)
        zeros, kind, num_axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{num_axes}I", data, offset=4)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): replace it with an intact copy") from error
    start = 4 + 4 * num_axes
    if zeros != 0 or kind != _UINT8:
        raise UserError(f"{path} is not an idx file of bytes: it begins with {data[:4].hex()}, not 0000 08..")
    if len(data) != start + math.prod(shape):
        raise UserError(f"{path} is damaged: its header promises {math.prod(shape)} bytes, {len(data) - start} follow")
    if 0 in shape:
        raise UserError(f"{path} is empty: its header gives the shape {list(shape)}; replace it with an intact copy")
    # A bytearray, because a tensor must be writable and `data` is not.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(shape)


def idx_bytes(values: Tensor) -> bytes:
    """Encode `values`, uint8 of any shape, as the content of an uncompressed idx file."""
    header = struct.pack(f">HBB{values.ndim}I", 0, _UINT8, values.ndim, *values.shape)
    return header + values.contiguous().numpy().tobytes()
