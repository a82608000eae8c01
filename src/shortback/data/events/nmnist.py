"""The format of N-MNIST and N-Caltech101: five bytes per event."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shortback.data.events.recording import Events, whole_records

OVERFLOW_ROW = 240  # not a row of the sensor: the 13-bit clock has wrapped around
OVERFLOW = 8192  # microseconds


def read_nmnist(path: Path, *, height: int = 34, width: int = 34) -> Events:
    """Read a recording of an ATIS camera with five bytes per event (Orchard et al., 2015).

    An event is a byte of x, a byte of y, then, big-endian, one bit of polarity (1 is ON) and 23 bits of microseconds.
    On a sensor of up to 240 rows, y = 240 is not an event: all times after it are 8,192 microseconds later.

    Args:
        path: the file.
        height, width: size of the sensor; N-Caltech101's is 180 x 240.

    Raises:
        UserError: an event cut off, no event, or one outside the sensor, as in a file of another format.
    """
    content = path.read_bytes()
    count = whole_records(content, 5, name=str(path))
    rows = np.frombuffer(content, dtype=np.uint8, count=5 * count).reshape(-1, 5)
    x, y, high = rows[:, 0], rows[:, 1], rows[:, 2].astype(np.uint32)
    t = (((high & 0x7F) << 16) | (rows[:, 3].astype(np.uint32) << 8) | rows[:, 4]).astype(np.int64)
    on = high >= 0x80
    marks = y == OVERFLOW_ROW
    if marks.any() and height <= OVERFLOW_ROW:
        t += OVERFLOW * np.cumsum(marks)
        x, y, t, on = x[~marks], y[~marks], t[~marks], on[~marks]
    return Events.checked(t=t, x=x, y=y, on=on, height=height, width=width, name=str(path))
