import gzip
import lzma
from pathlib import Path

import pytest
import torch

from shortback.data.idx import idx_bytes, read_idx

VALUES = torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
# By hand, from the description of the format: 0, 0, 8 for bytes, 3 axes, big-endian sizes, the bytes.
CONTENT = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, *range(24)])


def test_bytes_by_hand() -> None:
    assert idx_bytes(VALUES) == CONTENT
    assert idx_bytes(VALUES.transpose(0, 2)) == idx_bytes(VALUES.transpose(0, 2).contiguous())


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)],
    ids=["plain", "gz", "xz"],
)
def test_reading_by_suffix(tmp_path: Path, suffix: str, pack: object) -> None:
    path = tmp_path / f"values-idx3-ubyte{suffix}"
    path.write_bytes(pack(CONTENT))  # type: ignore[operator]
    assert torch.equal(read_idx(path), VALUES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", CONTENT[:-1], "promises 24 bytes, 23 follow"),
        ("a", CONTENT + b"1", "promises 24 bytes, 25 follow"),
        ("a", bytes([0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 3]), r"is empty: its header gives the shape \[0, 3\]"),
        ("a", CONTENT[:6], "is damaged"),
        ("a", b"", "is damaged"),
        ("a", b"\x00\x00\x0d" + CONTENT[3:], "not an idx file of bytes: it begins with 00000d03"),
        ("a.gz", CONTENT, "is damaged"),
        ("a.gz", gzip.compress(CONTENT, mtime=0)[:-9], "is damaged"),
        ("a.gz", gzip.compress(CONTENT, mtime=0)[:15] + b"\xff" * 30, "is damaged"),
        ("a.xz", CONTENT, "is damaged"),
        ("a.xz", lzma.compress(CONTENT)[:-9], "is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} .*{message}|{name} {message}"):
        read_idx(tmp_path / name)
