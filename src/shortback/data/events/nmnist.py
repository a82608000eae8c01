"""The format of N-MNIST and N-Caltech101: five bytes an event."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shortback.data.events.recording import Events, whole_records

OVERFLOW_ROW = 240  # no row of the sensor: the clock of 13 bits has begun anew
OVERFLOW = 8192  # microseconds


def read_nmnist(path: Path, *, height: int = 34, width: int = 34) -> Events:
    """Read a recording of an ATIS camera in five bytes an event (Orchard et al., 2015).

    A byte of x, a byte of y, then big-endian one bit of polarity (1 is ON) and 23 bits of microseconds. An event whose
    y is 240 is none: all times after it are 8,192 microseconds later.

    Args:
        path: the file.
        height, width: of the sensor; N-Caltech101's is 180 x 240.

    Raises:
        UserError: an event cut off, none at all, or one outside the sensor, as where the format is another.
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
