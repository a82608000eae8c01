"""AEDAT 3.1, the format of cAER: DVS128 Gesture."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from shortback.data.events.recording import Events
from shortback.data.events.sensor import Size
from shortback.errors import UserError
from shortback.words import quantity

DVS128 = (128, 128)
# Of a packet: type, source, size of an event, offset of its time, overflow, capacity, number of events, number valid.
HEADER = struct.Struct("<HHIIIIII")
POLARITY = 1
EVENT = 8  # bytes of a polarity event
LINE = b"#!AER-DAT3.1"
END_OF_HEADER = b"#!END-HEADER\r\n"


def read_aedat3(path: Path, *, sensor: Size | None = None) -> Events:
    """Read a recording of a DVS128 camera, or of another camera whose size is given.

    The file has lines, the last of them `#!END-HEADER`, then packets: a header of 28 bytes and the events, all
    little-endian. A polarity event has 32 bits of data (bit 0: valid, bit 1: ON, bits 2 to 16: y, bits 17 to 31: x) and
    32 bits of microseconds; the overflow counter of the packet adds $2^{31}$ per count.

    Args:
        path: the file.
        sensor: height and width, in pixels, which the format does not store; 128 and 128 by default.

    Raises:
        UserError: another format, a packet cut off, or no event.
    """
    content = path.read_bytes()
    if content.startswith(b"#!AER-DAT3.0"):
        raise UserError(
            f"{path}: is AEDAT 3.0, whose rows are counted from the bottom and whose header has no end marker; only "
            "3.1 is read: rewrite the file with cAER or DV"
        )
    if not content.startswith(LINE):
        raise UserError(f"{path}: is not an AEDAT 3.1 file: it does not begin with {LINE.decode()}")
    position = content.find(END_OF_HEADER)
    if position < 0:
        raise UserError(f"{path}: its header has no end marker (#!END-HEADER)")
    position += len(END_OF_HEADER)
    parts, overflows, whole = [], [], 0
    while position < len(content):
        if len(content) - position < HEADER.size:
            raise _cut_off(path, whole)
        kind, _, size, _, overflow, _, number, _ = HEADER.unpack_from(content, position)
        position += HEADER.size
        if kind == POLARITY and size != EVENT:
            raise UserError(f"{path}: has polarity events of {size} bytes instead of {EVENT}: is it damaged?")
        end = position + number * size
        if len(content) < end:
            raise _cut_off(path, whole)
        if kind == POLARITY:
            parts.append(content[position:end])
            overflows.append((overflow, number))
            whole += number
        position = end
    if not whole:
        raise UserError(f"{path}: there is no event in it")
    words = np.frombuffer(b"".join(parts), dtype="<u4")
    data, t = np.ascontiguousarray(words[0::2]), words[1::2].astype(np.int64)
    if any(overflow for overflow, _ in overflows):
        t += np.repeat([overflow for overflow, _ in overflows], [number for _, number in overflows]) << 31
    valid = (data & 1).astype(bool)
    if not valid.all():
        data, t = data[valid], t[valid]
    height, width = sensor or DVS128
    x, y, on = (data >> 17).astype(np.uint16), ((data >> 2) & 0x7FFF).astype(np.uint16), (data & 2) != 0
    return Events.checked(t=t, x=x, y=y, on=on, height=height, width=width, name=str(path))


def _cut_off(path: Path, whole: int) -> UserError:
    return UserError(f"{path}: is cut off after {quantity(whole, 'whole event')}")
