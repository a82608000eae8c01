"""A sequence of strings stored in two arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """A sequence of file names whose memory is shared between processes after a fork.

    A list of a million `str` is copied page by page into every worker that reads it, because reading updates reference
    counts; two arrays are not. Strings are encoded by `os.fsencode`, so names that are not valid UTF-8 are preserved.

    Args:
        text: uint8, the concatenated strings.
        bounds: int64 `[len + 1]`, the start of each string, and the end of the last.
    """

    def __init__(self, text: np.ndarray, bounds: np.ndarray) -> None:
        self.text, self.bounds = text, bounds

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        encoded = [os.fsencode(string) for string in strings]
        bounds = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(each) for each in encoded], out=bounds[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> PackedStrings: ...
    def __getitem__(self, index: int | slice) -> str | PackedStrings:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            if step != 1:
                return PackedStrings.of(self[i] for i in range(first, last, step))
            return PackedStrings(self.text, self.bounds[first : max(first, last) + 1])
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} strings")
        index %= len(self)
        return os.fsdecode(self.text[self.bounds[index] : self.bounds[index + 1]].tobytes())

    def __add__(self, other: PackedStrings) -> PackedStrings:
        one, two = self.trimmed(), other.trimmed()
        bounds = np.concatenate([one.bounds, two.bounds[1:] + one.bounds[-1]])
        return PackedStrings(np.concatenate([one.text, two.text]), bounds)

    def trimmed(self) -> PackedStrings:
        """Return the same strings without text that belongs to others, with bounds that begin at 0."""
        begin, end = self.bounds[0], self.bounds[-1]
        return PackedStrings(self.text[begin:end], self.bounds - begin)
