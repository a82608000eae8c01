"""Choose the reader of an event file by its ending."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from shortback.choices import nearest
from shortback.data.events.aedat2 import read_aedat2
from shortback.data.events.aedat3 import read_aedat3
from shortback.data.events.aedat4 import read_aedat4
from shortback.data.events.arrays import read_hdf5, read_npz
from shortback.data.events.dat import read_dat
from shortback.data.events.evt2 import header_of, is_evt2, read_evt2
from shortback.data.events.evt3 import read_evt3
from shortback.data.events.nmnist import read_nmnist
from shortback.data.events.recording import Events
from shortback.data.events.sensor import SensorUnknownError, Size, check_size, shown
from shortback.data.events.text import read_text
from shortback.errors import UserError

log = logging.getLogger("shortback")

TO_NPZ = """Convert other formats to npz files:
    import numpy as np
    t, x, y, p = ...  # arrays of the same length: microseconds, column, row, 1 for ON and 0 for OFF
    np.savez("recording.npz", t=t, x=x, y=y, p=p, height=480, width=640)  # of the sensor, in pixels"""


class Reader(Protocol):
    """Reads a file; `sensor` gives the height and width if the file does not."""

    def __call__(self, path: Path, *, sensor: Size | None = None) -> Events: ...


def read_aedat(path: Path, *, sensor: Size | None = None) -> Events:
    """Read an AEDAT file with the reader of the version in its first line.

    Raises:
        UserError: the version is unknown, or the reader refuses the file.
    """
    with path.open("rb") as file:
        first = file.readline(64)
    if first.startswith(b"#!AER-DAT2.0"):
        return read_aedat2(path, sensor=sensor)
    if first.startswith(b"#!AER-DAT3."):
        return read_aedat3(path, sensor=sensor)
    if first.startswith(b"#!AER-DAT4"):
        return read_aedat4(path, sensor=sensor)
    raise UserError(f"{path}: is not an AEDAT 2.0, 3.1 or 4 file; it begins with {first[:20]!r}")


def read_raw(path: Path, *, sensor: Size | None = None) -> Events:
    """Read a `.raw` file with the reader of the version in its header.

    Raises:
        UserError: the reader refuses the file.
    """
    with path.open("rb") as file:
        lines, _ = header_of(file.read(4096))
    return (read_evt2 if is_evt2(lines) else read_evt3)(path, sensor=sensor)


def read_bin(path: Path, *, sensor: Size | None = None) -> Events:
    """Read a `.bin` file, whose format does not store the sensor size: N-MNIST's 34 and 34 unless `sensor` is given.

    Raises:
        UserError: see `read_nmnist`.
    """
    if sensor is None:
        return read_nmnist(path)
    return read_nmnist(path, height=sensor[0], width=sensor[1])


READERS: dict[str, Reader] = {
    ".aedat": read_aedat,
    ".aedat4": read_aedat4,
    ".bin": read_bin,
    ".dat": read_dat,
    ".npz": read_npz,
    ".npy": read_npz,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".raw": read_raw,
    ".csv": read_text,
    ".txt": read_text,
}


def read_recording(path: Path, *, sensor: Size | None = None) -> Events:
    """Read a recording in the format that its ending indicates, without guessing the sensor size.

    Args:
        path: the file.
        sensor: height and width, in pixels, for files that do not contain them.

    Raises:
        UserError: the ending is unknown, the content does not match it, or the file gives another size.
        SensorUnknownError: neither the file nor `sensor` gives the size.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        near = nearest(path.suffix, READERS, or_else="")
        raise UserError(
            f"{path}: event files end with {', '.join(READERS)}{near and f'; the nearest are {near}'}. {TO_NPZ}"
        )
    if sensor is not None:
        check_size(sensor, name=f"sensor=({sensor[0]}, {sensor[1]})", what="is")
    return reader(path, sensor=sensor)


def read_events(path: str | Path, *, sensor: Size | None = None) -> Events:
    """Read a recording in the format that its ending indicates.

    Args:
        path: the file.
        sensor: height and width, in pixels, for files that do not contain them. Without it, the sensor of such a file
            is assumed to end at the last row and column that have an event, with a warning: fine for one recording, but
            a second would have another scale.

    Raises:
        UserError: the ending is unknown, the content does not match it, or the file gives another size.
    """
    path = Path(path)
    try:
        return read_recording(path, sensor=sensor)
    except SensorUnknownError as error:
        check_size(error.reach, name=str(path), what="it does not give the size of its sensor, and its events reach")
        log.warning(
            "%s: does not say how large the sensor is, which is taken to end where its events do: %s; pass sensor="
            "(height, width)",
            *(path, shown(error.reach)),
        )
        return read_recording(path, sensor=error.reach)
