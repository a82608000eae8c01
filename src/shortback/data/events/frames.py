r"""Frames of events: how often each pixel changed in each of $T$ parts of a recording.

Of $n$ events, event $i$ at time $t_i$ goes into frame

$$f_i = \min\big(\lfloor i\, /\, \max(1, \lfloor n / T \rfloor) \rfloor,\, T - 1\big) \text{ (by count)}, \qquad
  f_i = \min\big(\lfloor T\, (t_i - t_0) / (t_{n-1} - t_0) \rfloor,\, T - 1\big) \text{ (by duration)},$$

so that no event is lost: the last frame has the remainder (by count) and the events at the last time (by duration). If
all times are equal, all events are in the first frame.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from shortback.choices import FramesBy, FrameValues, Resize, check_choice
from shortback.data.events.recording import Events
from shortback.errors import UserError

LARGEST = 255  # value of a byte


@dataclass(frozen=True, kw_only=True)
class Frames:
    """How recordings become frames.

    Attributes:
        num_steps: $T$, the number of frames.
        size: side of the square frames, in pixels; if larger than a side of the sensor, some rows or columns of the
            frames stay empty, since events are counted and not interpolated.
        by: `"count"`, frames with equally many events, or `"duration"`, frames of equal length.
        resize: `"sum"` counts the events of all sensor pixels that a pixel of the frame covers, `"nearest"` those of
            one of them.
        values: `"count"`, the number of events, or `"binary"`, whether there was any.
        keep_aspect: fit the longer side of the sensor to the frame and centre the shorter one, which leaves the rest
            empty, instead of stretching both sides to the frame.

    Raises:
        UserError: a number is below 1, or a choice is unknown.
    """

    num_steps: int
    size: int
    by: FramesBy = "count"
    resize: Resize = "sum"
    values: FrameValues = "count"
    keep_aspect: bool = False

    def __post_init__(self) -> None:
        for name in ("num_steps", "size"):
            if getattr(self, name) < 1:
                raise UserError(f"frames.{name}={getattr(self, name)}: must be 1 or more")
        check_choice("frames.by", self.by, FramesBy)
        check_choice("frames.resize", self.resize, Resize)
        check_choice("frames.values", self.values, FrameValues)


def to_frames(events: Events, settings: Frames) -> tuple[np.ndarray, int]:
    """Convert a recording to frames, with counts clipped to 255.

    Returns:
        The frames, uint8 `[T, 2, size, size]`, OFF in the first channel and ON in the second; and the number of values
        that were clipped.
    """
    num_steps, num_cells = settings.num_steps, 2 * settings.size**2
    begins = _by_count(len(events), num_steps) if settings.by == "count" else _by_duration(events.t, num_steps)
    narrow = 2 * events.height * events.width <= 2**16  # 16-bit addresses pass through memory in half the time
    address = events.y.astype(np.uint16 if narrow else np.int64)
    address += events.on * address.dtype.type(events.height)
    address *= address.dtype.type(events.width)
    address += events.x.astype(address.dtype, copy=False)
    table = _table(events.height, events.width, settings.size, settings.resize, settings.keep_aspect)
    cells = np.take(table, address, mode="clip")
    parts = (cells[begin:end] for begin, end in itertools.pairwise(begins))
    counts = np.stack([np.bincount(part, minlength=num_cells + 1)[:num_cells] for part in parts])
    if settings.values == "binary":
        return _shaped((counts > 0).astype(np.uint8), settings), 0
    saturated = int(np.count_nonzero(counts > LARGEST))
    if saturated:
        counts = np.minimum(counts, LARGEST)
    return _shaped(counts.astype(np.uint8), settings), saturated


def _shaped(values: np.ndarray, settings: Frames) -> np.ndarray:
    return values.reshape(settings.num_steps, 2, settings.size, settings.size)


def _by_count(count: int, num_steps: int) -> list[int]:
    """Where each frame begins among the events, and where the last one ends."""
    each = max(1, count // num_steps)
    return [min(step * each, count) for step in range(num_steps)] + [count]


def _by_duration(t: np.ndarray, num_steps: int) -> list[int]:
    span = int(t[-1] - t[0])
    if not span:
        return [0, *[len(t)] * num_steps]
    # The first time of frame k is the least t with T (t - t0) >= k * span, in whole numbers.
    edges = [int(t[0]) + -(-step * span // num_steps) for step in range(1, num_steps)]
    return [0, *np.searchsorted(t, edges, side="left").tolist(), len(t)]


@functools.lru_cache(maxsize=8)
def _table(height: int, width: int, size: int, resize: Resize, keep_aspect: bool) -> np.ndarray:
    """The frame cell, in `[2, size, size]`, that each sensor pixel counts for; one past the last cell means none.

    Returns:
        intp `[2 * height * width]`, OFF first.
    """
    longest = max(height, width)
    lines = ((length, longest if keep_aspect else length) for length in (height, width))
    rows, columns = (_line(length, whole, size, resize) for length, whole in lines)
    off = np.where((rows[:, None] < 0) | (columns < 0), -1, rows[:, None] * size + columns)
    both = np.stack([off, np.where(off < 0, -1, off + size**2)])
    return np.where(both < 0, 2 * size**2, both).astype(np.intp).ravel()


def _line(length: int, whole: int, size: int, resize: Resize) -> np.ndarray:
    """The row (or column) of the frame for each one of the sensor, -1 for none.

    Args:
        length: number of rows of the sensor, which are centred in the frame.
        whole: number of rows that would fill the frame, `length` or more.
    """
    margin = (size - (length - 1) * size // whole - 1) // 2 if whole > length else 0
    if resize == "sum":
        return np.arange(length) * size // whole + margin
    found = np.full(length, -1)
    taken = np.arange(size) * whole // size
    inside = taken < length
    found[taken[inside]] = np.arange(size)[inside] + margin
    return found
