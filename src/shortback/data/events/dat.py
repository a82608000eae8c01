"""DAT, the format of Prophesee's cameras."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shortback.data.events.recording import Events, whole_records
from shortback.data.events.sensor import Size, agreed
from shortback.errors import UserError

CHANGES = (0x00, 0x0C)  # types of events that are changes of brightness
ON = 1 << 28  # the polarity bit of the data
SENSOR = (240, 304)  # height and width of the cameras whose files do not contain them


def read_dat(path: Path, *, sensor: Size | None = None) -> Events:
    """Read a recording in Prophesee's DAT.

    The file has lines that begin with `%`, a byte for the type of events and one for their size, then per event 32 bits
    of microseconds and 32 bits of data, little-endian (bits 0 to 13: x, bits 14 to 27: y, bit 28: ON). The lines may
    give `Height` and `Width`.

    Args:
        path: the file.
        sensor: height and width, in pixels, if the lines do not give them; 240 and 304 by default.

    Raises:
        UserError: another format, an event cut off, no event, or the lines give another size.
    """
    content = path.read_bytes()
    begin, lines = 0, b""
    while content[begin : begin + 1] == b"%":
        end = content.find(b"\n", begin)
        end = len(content) if end < 0 else end + 1
        lines += content[begin:end]
        begin = end
    if not lines or len(content) < begin + 2 or content[begin] not in CHANGES or content[begin + 1] != 8:
        raise UserError(f"{path}: is not a DAT file of brightness changes with eight bytes per event")
    begin += 2
    count = whole_records(memoryview(content)[begin:], 8, name=str(path))
    words = np.frombuffer(content, dtype="<u4", count=2 * count, offset=begin).reshape(-1, 2)
    t, data = words[:, 0], words[:, 1]
    said = agreed(_said(lines, "Height"), _said(lines, "Width"), sensor, name=str(path))
    height, width = SENSOR if said == (None, None) else said
    return Events.checked(
        t=t, x=data & 0x3FFF, y=(data >> 14) & 0x3FFF, on=(data & ON) != 0, height=height, width=width, name=str(path)
    )


def _said(lines: bytes, key: str) -> int | None:
    found = re.search(rf"% {key} (\d+)".encode(), lines)
    return int(found[1]) if found else None
