"""How large the sensor of a recording is: what a file says, what a setting says, and what to do without either."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeAlias

from shortback.errors import UserError

log = logging.getLogger("shortback")

Size: TypeAlias = tuple[int, int]  # height and width, in pixels
LARGEST_SIDE = 4096  # pixels; what is larger is no sensor, but an address that is broken


class SensorUnknownError(UserError):
    """Neither a file nor a setting says how large the sensor is; nothing is wrong with the file.

    Args:
        name: of the file.
        reach: the size up to the last row and the last column that have an event.
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
    """A size in words that leave no doubt which number is which."""
    return f"height {size[0]}, width {size[1]}"


def agreed(height: int | None, width: int | None, sensor: Size | None, *, name: str) -> tuple[int | None, int | None]:
    """Height and width of a file, or of the setting where the file does not say them.

    Args:
        height: as the file says it, None where it does not.
        width: the same.
        sensor: the setting.
        name: of the file, for the message.

    Raises:
        UserError: the file says another size than the setting.
    """
    if sensor is None:
        return height, width
    for own, said, what in ((height, sensor[0], "height"), (width, sensor[1], "width")):
        if own is not None and own != said:
            raise UserError(
                f"{name}: its sensor has a {what} of {own} pixels, and the setting is sensor=[{sensor[0]}, "
                f"{sensor[1]}] (height, width); the setting is for all recordings, and can be left out for files "
                "that say their size"
            )
    return sensor


def check_size(size: Size, *, name: str, what: str = "its sensor would be of") -> None:
    """Raise `UserError` for a size that no sensor has, which names the file."""
    if min(size) < 1 or max(size) > LARGEST_SIDE:
        raise UserError(
            f"{name}: {what} {shown(size)}, and sensors have 1 to {LARGEST_SIDE} pixels a side: is an address broken, "
            "or is the file of another format?"
        )


def described(sizes: Mapping[Size, int], said_by: str) -> str:
    """The sizes of many recordings, the most frequent first, and what says so.

    Args:
        sizes: how many recordings are of each size.
    """
    ordered = sorted(sizes, key=lambda size: (-sizes[size], size))
    if len(ordered) == 1:
        return f"{shown(ordered[0])} ({said_by})"
    return "; ".join(f"{shown(size)} in {sizes[size]} recordings" for size in ordered) + f" ({said_by})"


def warn_of_sizes(sizes: Mapping[Size, int], *, frame: int, keep_aspect: bool, root: object) -> None:
    """Say which sensors do not fit frames of a side of so many pixels, and that recordings are of several."""
    if len(sizes) > 1:
        log.warning(
            "recordings in %s are of sensors of several sizes: %s; each is fitted to the frame, so that a pixel of it "
            "is not the same angle in all of them",
            root,
            described(sizes, "as the files or their formats say"),
        )
    fits = min((max(size) if keep_aspect else min(size)) for size in sizes) if sizes else frame
    if frame > fits:
        log.warning(
            "frames of %d x %d pixels are larger than the sensor (%s): rows or columns of them stay empty, since no "
            "event falls there; data.frames.size=%d is the largest that leaves none",
            *(frame, frame, shown(min(sizes, key=max if keep_aspect else min)), fits),
        )
