"""The sensor size of a recording: from its file, from a setting, or unknown."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeAlias

from shortback.errors import UserError
from shortback.words import quantity

log = logging.getLogger("shortback")

Size: TypeAlias = tuple[int, int]  # height and width, in pixels
LARGEST_SIDE = 4096  # pixels; anything larger is a corrupt address, not a sensor


class SensorUnknownError(UserError):
    """Neither the file nor a setting gives the size of the sensor; the file itself is fine.

    Args:
        name: name of the file.
        reach: height and width up to the last row and the last column that have an event.
    """

    def __init__(self, name: str, reach: Size) -> None:
        super().__init__(name, reach)
        self.name, self.reach = name, reach

    def __str__(self) -> str:
        return (
            f"{self.name}: does not say how large the sensor is; its events reach {shown(self.reach)}. Write "
            "data.sensor: [height, width] in a recipe, or sensor=(height, width) in Python"
        )


def shown(size: Size) -> str:
    """Format a size so that height and width cannot be confused."""
    return f"height {size[0]}, width {size[1]}"


def agreed(height: int | None, width: int | None, sensor: Size | None, *, name: str) -> tuple[int | None, int | None]:
    """Check the size in a file against the setting, which supplies what the file lacks; return height and width.

    Args:
        height: the height in the file, or None.
        width: the width in the file, or None.
        sensor: height and width in the setting, or None.
        name: name of the file, for the message.

    Raises:
        UserError: the file gives a different size from the setting.
    """
    height, width = (None if side == 0 else side for side in (height, width))  # some headers say 0 for unknown
    if sensor is None:
        return height, width
    for own, said, what in ((height, sensor[0], "height"), (width, sensor[1], "width")):
        if own is not None and own != said:
            raise UserError(
                f"{name}: its sensor has a {what} of {own} pixels, but the setting is sensor=[{sensor[0]}, "
                f"{sensor[1]}] (height, width); the setting applies to all recordings, and can be left out for files "
                "that contain their size"
            )
    return sensor


def check_size(size: Size, *, name: str, what: str = "its sensor would have") -> None:
    """Raise `UserError`, naming the file, unless both sides have 1 to `LARGEST_SIDE` pixels."""
    if min(size) < 1 or max(size) > LARGEST_SIDE:
        raise UserError(
            f"{name}: {what} {shown(size)}, but sensors have 1 to {LARGEST_SIDE} pixels a side: is an address corrupt, "
            "or is the file in another format?"
        )


def described(sizes: Mapping[Size, int], size_source: str) -> str:
    """Describe the sensor sizes of many recordings, the most frequent first.

    Args:
        sizes: the number of recordings of each size.
        size_source: where the sizes come from, in words.
    """
    ordered = sorted(sizes, key=lambda size: (-sizes[size], size))
    if len(ordered) == 1:
        return f"{shown(ordered[0])} ({size_source})"
    return "; ".join(f"{shown(size)} in {quantity(sizes[size], 'recording')}" for size in ordered) + f" ({size_source})"


def warn_of_sizes(sizes: Mapping[Size, int], *, frame: int, keep_aspect: bool, root: object) -> None:
    """Warn if recordings differ in sensor size, or if frames of side `frame`, in pixels, are larger than a sensor."""
    if len(sizes) > 1:
        log.warning(
            "recordings in %s come from sensors of several sizes: %s; each is fitted to the frame, so a pixel of the "
            "frame does not cover the same angle in all of them",
            root,
            described(sizes, "as the files or their formats say"),
        )
    fits = min((max(size) if keep_aspect else min(size)) for size in sizes) if sizes else frame
    if frame > fits:
        log.warning(
            "frames of %d x %d pixels are larger than the sensor (%s): rows or columns stay empty, since no event "
            "falls there; data.frames.size=%d is the largest that leaves none empty",
            *(frame, frame, shown(min(sizes, key=max if keep_aspect else min)), fits),
        )
