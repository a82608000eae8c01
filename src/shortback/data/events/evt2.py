"""EVT 2.0, the raw format of Prophesee's cameras before EVT 3.0."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shortback.data.events.recording import Events, unwrap_clock, whole_records
from shortback.data.events.sensor import Size, agreed
from shortback.errors import UserError

OFF, ON, TIME_HIGH = 0x0, 0x1, 0x8  # types of words
LOW_BITS = 6  # of the time, in the word of an event
HIGH_RANGE = 2**28  # period of the upper bits of the time, in a word of their own


def read_evt2(path: Path, *, sensor: Size | None = None) -> Events:
    """Read the changes of brightness in a `.raw` file in EVT 2.0; triggers and other words are skipped.

    The file has lines that begin with `%`, then little-endian words of 32 bits, whose upper four are the type. In a
    change (type 0: OFF, 1: ON), bits 22 to 27 are the lower six of the microseconds, bits 11 to 21 x and bits 0 to 10
    y. A word of type 8 has the upper 28 bits of the time for all changes after it; they wrap around every 4.8 hours,
    and are continued. Changes before the first such word are skipped.

    Args:
        path: the file.
        sensor: height and width, in pixels, if the lines do not give them.

    Raises:
        UserError: another format, a word cut off, no event, or the lines give another size.
        SensorUnknownError: neither the lines nor `sensor` gives the size.
    """
    content = path.read_bytes()
    lines, begin = header_of(content)
    if not is_evt2(lines):
        raise UserError(f"{path}: is not an EVT 2.0 file: its header does not say so")
    count = whole_records(memoryview(content)[begin:], 4, name=str(path))
    words = np.frombuffer(content, dtype="<u4", count=count, offset=begin)
    kind = words >> 28
    is_time = kind == TIME_HIGH
    latest = np.cumsum(is_time) - 1  # index of the time word that applies to each word
    change = np.flatnonzero((kind <= ON) & (latest >= 0))
    times = unwrap_clock(words[is_time].astype(np.int64) & (HIGH_RANGE - 1), HIGH_RANGE)
    data, high = words[change], times[latest[change]]
    height, width = agreed(*size_in(lines), sensor, name=str(path))
    return Events.checked(
        t=(high << LOW_BITS) | ((data >> 22) & 0x3F),
        x=((data >> 11) & 0x7FF).astype(np.uint16),
        y=(data & 0x7FF).astype(np.uint16),
        on=kind[change] == ON,
        height=height,
        width=width,
        name=str(path),
    )


def header_of(content: bytes) -> tuple[bytes, int]:
    """The lines at the start that begin with `% `, and where they end; `% end` is the last of them."""
    begin = 0
    while content[begin : begin + 2] in (b"% ", b"%\n", b"%\r"):  # events may begin with the byte of a % too
        end = content.find(b"\n", begin)
        end = len(content) if end < 0 else end + 1
        line, begin = content[begin:end], end
        if line.strip().lower() == b"% end":
            break
    return content[:begin], begin


def is_evt2(lines: bytes) -> bool:
    """Whether a header says EVT 2.0, and not 2.1, whose words are different."""
    return re.search(rb"evt 2\.0|format evt2\b", lines.lower()) is not None


def size_in(lines: bytes) -> tuple[int | None, int | None]:
    """Height and width from a header with `geometry 640x480` or `height=480;width=640`; None if it has neither."""
    said = lines.lower()
    if found := re.search(rb"geometry:? *(\d+) *x *(\d+)", said):
        return int(found[2]), int(found[1])
    height, width = (re.search(rb"\b%s[ =:]+(\d+)" % key, said) for key in (b"height", b"width"))
    return (int(height[1]), int(width[1])) if height and width else (None, None)
