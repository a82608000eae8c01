"""What an event camera records: changes of brightness, each at a pixel and a time."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from shortback.data.events.sensor import SensorUnknownError, check_size
from shortback.errors import UserError

log = logging.getLogger("shortback")

RANGE = 2**32  # of a 32-bit clock
LARGEST = 2.0**62  # of the floats that are taken for whole numbers
NO_RECORDING = 4  # microseconds; what took less was counted in seconds
SHORT, LONG = 10.0, 3600.0  # seconds of a recording; what took fewer or more of a float's unit is told by it alone
ROUNDING = 1e-2  # microseconds


class MissingLibraryError(UserError):
    """A library has to be installed before files of a format can be read; nothing is wrong with the file."""


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
        """Events as a file has them, put in order and checked.

        Args:
            t: microseconds, whole numbers of any type; where a 32-bit clock begins anew the times go on (of times
                that span more than 32 bits nothing is assumed), and events that are out of order are sorted, which
                is said.
            x: column, a whole number of any type.
            y: row, the same.
            on: 1 where the pixel became brighter, else 0 or -1; or bool.
            height: of the sensor, in pixels; None where nothing says it.
            width: the same.
            name: of the file, for messages.

        Raises:
            UserError: there is no event, one lies outside the sensor, a size that no sensor has, or numbers that are
                none of the above, such as times in seconds.
            SensorUnknownError: nothing says height or width; it has how far the events reach.
        """
        if not len(t):
            raise UserError(f"{name}: there is no event in it")
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
            t = going_on(t, RANGE)
            disorder = int((t[1:] < t[:-1]).sum())
            if disorder:
                log.warning("%s: %d events are not in the order of their times; they are sorted", name, disorder)
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
        f"(width x height), x={x[first]} y={y[first]} for one: "
        + (
            "they would fit the other way round. Is height first, and is x the column?"
            if turned
            else "is it of another camera (data.sensor says its size), or of another format?"
        )
    )


def _microseconds(t: np.ndarray, name: str) -> np.ndarray:
    """Times as int64; those in seconds or milliseconds, with fractions or next to nothing apart, are refused."""
    if t.dtype.kind == "f" and np.isfinite(t).all():
        span = float(t.max()) - float(t.min())
        if 0 < span < NO_RECORDING or (t != np.trunc(t)).any():
            units = [("milliseconds", 3), ("seconds", 6)]
            (unit, power), (other, other_power) = units if _look_like_milliseconds(t, span) else units[::-1]
            raise UserError(
                f"{name}: its times, {float(t.min()):g} to {float(t.max()):g}, look like {unit} (a recording of "
                f"{span / 10.0 ** (6 - power):g} s), and microseconds are needed: write (t * 1e{power}).round()"
                f".astype(np.int64), (t * 1e{other_power}).round().astype(np.int64) if they are {other}, or "
                "t.astype(np.int64) if they are microseconds"
            )
    return _whole(t, "t", name).astype(np.int64, copy=False)


def _look_like_milliseconds(t: np.ndarray, span: float) -> bool:
    """Cameras count microseconds: of those, milliseconds have three places and seconds six; and few record an hour."""
    thousands = t.astype(np.float64) * 1e3
    return span >= LONG or (span >= SHORT and bool((np.abs(thousands - thousands.round()) < ROUNDING).all()))


def _whole(values: np.ndarray, what: str, name: str) -> np.ndarray:
    """The same numbers as integers; no pass over what is some already."""
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "f":
        raise UserError(f"{name}: {what} must be whole numbers, and is {values.dtype}")
    values = values.astype(np.float64)
    wrong = ~((np.abs(values) < LARGEST) & (values == np.trunc(values)))  # NaN is neither
    if wrong.any():
        raise UserError(
            f"{name}: {what} must be whole numbers, and {int(wrong.sum())} of its {len(values)} are not: "
            f"{values[wrong][0]:g}, for one"
        )
    return values.astype(np.int64)


def _is_on(on: np.ndarray, name: str) -> np.ndarray:
    if on.dtype.kind == "b":
        return on
    on = _whole(on, "p", name)
    least, most = int(on.min()), int(on.max())
    if least < -1 or most > 1:
        raise UserError(f"{name}: p must be 1 (ON) and 0 or -1 (OFF), and is {least} to {most}")
    return on > 0


def going_on(t: np.ndarray, period: int) -> np.ndarray:
    """Times, int64 `[n]`, of a clock that begins anew after so many, going on where it does.

    A step down by more than half of the period is a new beginning, and one up after it leads back before it: so events
    that are out of order there stay where they are. Before the first a step up is a pause. Times that span a period or
    more are of no such clock, and are returned as they are.
    """
    if not len(t) or int(t.max()) - int(t.min()) >= period:
        return t
    steps = np.diff(t, prepend=t[0])
    turns = np.cumsum((steps < -(period // 2)).astype(np.int64) - (steps > period // 2))
    return t + period * (turns - np.minimum(np.minimum.accumulate(turns), 0))


def whole_records(content: bytes | memoryview, size: int, *, name: str) -> int:
    """How many records of `size` bytes there are.

    Raises:
        UserError: the last one is cut off.
    """
    count, rest = divmod(len(content), size)
    if rest:
        raise UserError(f"{name}: is cut off after {count} whole events ({rest} bytes of the next are there)")
    return count
