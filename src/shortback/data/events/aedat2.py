"""AEDAT 2.0, the format of jAER: DVS128 recordings and CIFAR10-DVS."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shortback.data.events.recording import Events, whole_records
from shortback.data.events.sensor import Size, agreed
from shortback.errors import UserError

SIDE = 128
NUM_LOOKED_AT = 1000  # events whose addresses show whether the camera is another one
SPECIAL = 0x8000  # bit 15 of the address: the event is an external signal, not a change of brightness


def read_aedat2(path: Path, *, sensor: Size | None = None, lies_on_its_side: bool = False) -> Events:
    """Read a recording of a DVS128 camera.

    The file has lines that begin with `#`, then 32 bits of address and 32 bits of microseconds per event, big-endian.
    In the address, bit 0 is the polarity (0 is ON), and bits 1 to 7 and 8 to 14 are two coordinates from 0 to 127. For
    an upright camera, the row is 127 - (bits 8 to 14) and the column 127 - (bits 1 to 7). The camera of CIFAR10-DVS lay
    on its side.

    Args:
        path: the file.
        sensor: height and width, in pixels; other than 128 and 128 are refused.
        lies_on_its_side: read it as CIFAR10-DVS: row 127 - (bits 1 to 7), column 127 - (bits 8 to 14).

    Raises:
        UserError: another format, another camera or size, an event cut off, or no event.
    """
    content = path.read_bytes()
    if not content.startswith(b"#!AER-DAT2.0"):
        raise UserError(f"{path}: is not an AEDAT 2.0 file: it does not begin with #!AER-DAT2.0")
    agreed(SIDE, SIDE, sensor, name=str(path))
    begin = _end_of_header(content)
    count = whole_records(memoryview(content)[begin:], 8, name=str(path))
    upper = np.frombuffer(content, dtype=">u2", count=4 * min(count, NUM_LOOKED_AT), offset=begin)[0::4]
    if not lies_on_its_side and np.count_nonzero(upper) > len(upper) // 2:
        raise UserError(
            f"{path}: its addresses have more than 16 bits, as those of DAVIS cameras, but AEDAT 2.0 is only read from "
            "a DVS128: convert the file to AEDAT 4, or to npz (docs/events.md)"
        )
    # Only the lower half of the address: 16-bit values pass through memory in half the time.
    address = np.frombuffer(content, dtype=">u2", count=4 * count, offset=begin)[1::4].astype(np.uint16)
    t = np.frombuffer(content, dtype=">u4", count=2 * count, offset=begin)[1::2].astype(np.int64)
    if int(address.max(initial=0)) >= SPECIAL:
        usual = address < SPECIAL
        address, t = address[usual], t[usual]
    one, other = SIDE - 1 - ((address >> 1) & (SIDE - 1)), SIDE - 1 - (address >> 8)
    on = (address & 1) == 0
    if lies_on_its_side:
        return Events.checked(t=t, x=other, y=one, on=on, height=SIDE, width=SIDE, name=str(path))
    return Events.checked(t=t, x=one, y=other, on=on, height=SIDE, width=SIDE, name=str(path))


def _end_of_header(content: bytes) -> int:
    begin = 0
    while content[begin : begin + 1] == b"#":
        end = content.find(b"\n", begin)
        begin = len(content) if end < 0 else end + 1
    return begin
