"""What an event camera records: changes of brightness, each at a pixel and a time."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from shortback.errors import UserError

log = logging.getLogger("shortback")

HALF_RANGE = 2**31  # microseconds; a 32-bit clock that falls by more has begun anew


@dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording, in the order of their times.

    Attributes:
        t: int64 [n], microseconds.
        x: whole numbers [n], the column, from the left of an upright picture.
        y: whole numbers [n], the row, from its top.
        on: bool [n], whether the pixel became brighter.
        height: of the sensor, in pixels.
        width: of the sensor, in pixels.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    on: np.ndarray
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def checked(
        cls, *, t: np.ndarray, x: np.ndarray, y: np.ndarray, on: np.ndarray, height: int, width: int, name: str
    ) -> Events:
        """Events as a file has them, put in order and checked.

        Args:
            t: whole microseconds; where a 32-bit clock begins anew the times go on, and events that are out of order
                are sorted, which is said.
            x: column, a whole number.
            y: row, a whole number.
            on: 0 or 1.
            name: of the file, for messages.

        Raises:
            UserError: there is no event, or one lies outside the sensor.
        """
        if not len(t):
            raise UserError(f"{name}: there is no event in it")
        negative = x.dtype.kind == "i" and min(int(x.min()), int(y.min())) < 0
        if negative or int(x.max()) >= width or int(y.max()) >= height:
            outside = int(((x >= width) | (y >= height) | (x < 0) | (y < 0)).sum())
            raise UserError(
                f"{name}: {outside} of its {len(t)} events lie outside the sensor of {width} x {height} pixels: is it "
                "of another camera, or another format?"
            )
        t = t.astype(np.int64, copy=False)
        if (t[1:] < t[:-1]).any():
            t = _going_on(t)
            disorder = int((t[1:] < t[:-1]).sum())
            if disorder:
                log.warning("%s: %d events are not in the order of their times; they are sorted", name, disorder)
                order = np.argsort(t, kind="stable")
                t, x, y, on = t[order], x[order], y[order], on[order]
        return cls(t, x, y, on.astype(bool, copy=False), height, width)


def _going_on(t: np.ndarray) -> np.ndarray:
    """Times of a 32-bit clock, going on where it begins anew."""
    again = np.diff(t) < -HALF_RANGE
    return np.concatenate([t[:1], t[1:] + np.cumsum(again) * 2**32])


def whole_records(content: bytes | memoryview, size: int, *, name: str) -> int:
    """How many records of `size` bytes there are.

    Raises:
        UserError: the last one is cut off.
    """
    count, rest = divmod(len(content), size)
    if rest:
        raise UserError(f"{name}: is cut off after {count} whole events ({rest} bytes of the next are there)")
    return count
