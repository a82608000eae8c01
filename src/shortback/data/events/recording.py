"""Recordings of event cameras: changes of brightness, each at a pixel and a time."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from shortback.data.events.sensor import SensorUnknownError, check_size
from shortback.errors import UserError
from shortback.words import quantity

log = logging.getLogger("shortback")

RANGE = 2**32  # period of a 32-bit clock
AT_WRAP = 1_000_000  # ticks; events that are out of order are closer to each other
LARGEST = 2.0**62  # floats of this magnitude or more are not accepted as whole numbers
MIN_FLOAT_SPAN = 4  # microseconds; float times that span less are in another unit
SHORT, LONG = 10.0, 3600.0  # a shorter span is in seconds, a longer one in milliseconds; in between, decimals decide
ROUNDING = 1e-2  # microseconds; tolerance for a whole number of them


class MissingLibraryError(UserError):
    """The library that reads a file format is not installed; the file itself is fine."""


@dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording, in order of time.

    Attributes:
        t: int64 [n], microseconds.
        x: integer [n], the column, counted from the left of the upright picture.
        y: integer [n], the row, counted from its top.
        on: bool [n], whether the pixel became brighter.
        height: height of the sensor, in pixels.
        width: width of the sensor, in pixels.
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
        cls,
        *,
        t: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        on: np.ndarray,
        height: int | None,
        width: int | None,
        name: str,
    ) -> Events:
        """Check the events of a file and put them in order of time.

        Args:
            t: microseconds, whole numbers of any type. A 32-bit clock that wraps around is continued, unless the times
                span more than 32 bits; events that are still out of order are sorted, with a warning.
            x: column, a whole number of any type.
            y: row, likewise.
            on: 1 where the pixel became brighter, else 0 or -1; or bool.
            height: height of the sensor, in pixels; None if unknown.
            width: width of the sensor, likewise.
            name: name of the file, for messages.

        Raises:
            UserError: there is no event, an event lies outside the sensor, no sensor has the size, or the numbers are
                not as described above, such as times in seconds.
            SensorUnknownError: height or width is unknown; the error holds how far the events reach.
        """
        if not len(t):
            raise UserError(f"{name}: there is no event in it")
        is_short = t.dtype.itemsize <= 4
        t = _microseconds(t, name)
        x, y, on = _whole(x, "x", name), _whole(y, "y", name), _is_on(on, name)
        right, bottom = int(x.max()), int(y.max())
        reach = (height or max(bottom, 0) + 1, width or max(right, 0) + 1)
        negative = any(axis.dtype.kind == "i" and int(axis.min()) < 0 for axis in (x, y))
        if negative or right >= reach[1] or bottom >= reach[0]:
            raise _outside(x, y, reach, name)
        if height is None or width is None:
            raise SensorUnknownError(name, reach)
        check_size(reach, name=name)
        if (t[1:] < t[:-1]).any():
            # Times of 64 bits may have been copied from a clock of 32, which is near its end when it begins anew.
            t = unwrap_clock(t, RANGE) if is_short or 0.98 * RANGE < int(t.max()) < RANGE else t
            disorder = int((t[1:] < t[:-1]).sum())
            if disorder:
                events = quantity(disorder, "event is", "events are")
                log.warning("%s: %s out of order; they are sorted by time", name, events)
                order = np.argsort(t, kind="stable")
                t, x, y, on = t[order], x[order], y[order], on[order]
        return cls(t, x, y, on, height, width)


def _outside(x: np.ndarray, y: np.ndarray, size: tuple[int, int], name: str) -> UserError:
    height, width = size
    outside = (x >= width) | (y >= height) | (x < 0) | (y < 0)
    first = int(np.argmax(outside))
    turned = bool(((x >= 0) & (x < height) & (y >= 0) & (y < width)).all())
    return UserError(
        f"{name}: {int(outside.sum())} of its {len(x)} events lie outside the sensor of {width} x {height} pixels "
        f"(width x height), for example x={x[first]} y={y[first]}: "
        + (
            "they would fit the other way round. Is height first, and is x the column?"
            if turned
            else "is the file from another camera (set its size by data.sensor), or in another format?"
        )
    )


def _microseconds(t: np.ndarray, name: str) -> np.ndarray:
    """Convert times to int64; refuse floats with fractions or a tiny span, which are in seconds or milliseconds."""
    if t.dtype.kind == "f" and np.isfinite(t).all():
        span = float(t.max()) - float(t.min())
        if 0 < span < MIN_FLOAT_SPAN or (t != np.trunc(t)).any():
            units = [("milliseconds", 3), ("seconds", 6)]
            (unit, power), (other, other_power) = units if _look_like_milliseconds(t, span) else units[::-1]
            raise UserError(
                f"{name}: its times, {float(t.min()):g} to {float(t.max()):g}, look like {unit} (a recording of "
                f"{span / 10.0 ** (6 - power):g} s), but microseconds are needed: write (t * 1e{power}).round()"
                f".astype(np.int64), (t * 1e{other_power}).round().astype(np.int64) if they are {other}, or "
                "t.astype(np.int64) if they are microseconds"
            )
    return _whole(t, "t", name).astype(np.int64, copy=False)


def _look_like_milliseconds(t: np.ndarray, span: float) -> bool:
    """Whether times are in milliseconds: then microseconds are whole thousandths; and few recordings last an hour."""
    thousands = t.astype(np.float64) * 1e3
    return span >= LONG or (span >= SHORT and bool((np.abs(thousands - thousands.round()) < ROUNDING).all()))


def _whole(values: np.ndarray, what: str, name: str) -> np.ndarray:
    """Convert whole numbers to integers; integers are returned without a pass over them."""
    if values.dtype.kind in "iu":
        if values.dtype == np.uint64 and len(values) and values.max() >= LARGEST:
            raise UserError(f"{name}: {what} must be below {LARGEST}, and reaches {values.max()}")
        return values
    if values.dtype.kind != "f":
        raise UserError(f"{name}: {what} must be whole numbers, not {values.dtype}")
    values = values.astype(np.float64)
    wrong = ~((np.abs(values) < LARGEST) & (values == np.trunc(values)))  # NaN is neither
    if wrong.any():
        raise UserError(
            f"{name}: {what} must be whole numbers, but {int(wrong.sum())} of its {len(values)} are not, "
            f"for example {values[wrong][0]:g}"
        )
    return values.astype(np.int64)


def _is_on(on: np.ndarray, name: str) -> np.ndarray:
    if on.dtype.kind == "b":
        return on
    on = _whole(on, "p", name)
    least, most = int(on.min()), int(on.max())
    if least < -1 or most > 1:
        raise UserError(f"{name}: p must be 1 (ON) and 0 or -1 (OFF), but ranges from {least} to {most}")
    return on > 0


def unwrap_clock(t: np.ndarray, period: int) -> np.ndarray:
    """Continue the times, int64 `[n]`, of a clock that wraps around after `period`.

    A step down by more than half the period is a wrap, and a step up by as much after it leads back before the wrap, so
    that events out of order around a wrap keep their times. Before the first wrap, a step up is a pause, unless it
    leads from just after a wrap to just before it: then the recording begins at the wrap, and the times before it are
    negative. Times that span a period or more cannot come from such a clock, and are returned unchanged.
    """
    if not len(t) or int(t.max()) - int(t.min()) >= period:
        return t
    steps = np.diff(t, prepend=t[0])
    wraps, back = (steps < -(period // 2)).astype(np.int64), steps > period // 2
    from_wrap = back & (t - steps < AT_WRAP) & (t >= period - AT_WRAP)
    with_pauses = np.cumsum(wraps - (back & ~from_wrap))
    return t + period * (np.cumsum(wraps - back) - np.minimum(np.minimum.accumulate(with_pauses), 0))


def whole_records(content: bytes | memoryview, size: int, *, name: str) -> int:
    """Return the number of records of `size` bytes in `content`.

    Raises:
        UserError: the last record is cut off.
    """
    count, rest = divmod(len(content), size)
    if rest:
        raise UserError(
            f"{name}: is cut off after {quantity(count, 'whole event')} and {quantity(rest, 'byte')} of the next"
        )
    return count
