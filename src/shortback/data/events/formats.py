"""Which reader a file of events takes, by its ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shortback.choices import nearest
from shortback.data.events.aedat2 import read_aedat2
from shortback.data.events.aedat3 import read_aedat3
from shortback.data.events.aedat4 import read_aedat4
from shortback.data.events.arrays import read_hdf5, read_npz
from shortback.data.events.dat import read_dat
from shortback.data.events.evt3 import read_evt3
from shortback.data.events.nmnist import read_nmnist
from shortback.data.events.recording import Events
from shortback.errors import UserError

Reader = Callable[[Path], Events]


def read_aedat(path: Path) -> Events:
    """Read an AEDAT file by the version that its first line says.

    Raises:
        UserError: a version that is not known, or see the readers.
    """
    with path.open("rb") as file:
        first = file.readline(64)
    if first.startswith(b"#!AER-DAT2.0"):
        return read_aedat2(path)
    if first.startswith(b"#!AER-DAT3"):
        return read_aedat3(path)
    if first.startswith(b"#!AER-DAT4"):
        return read_aedat4(path)
    raise UserError(f"{path}: is no AEDAT 2.0, 3.1 or 4 file; it begins with {first[:20]!r}")


READERS: dict[str, Reader] = {
    ".aedat": read_aedat,
    ".aedat4": read_aedat4,
    ".bin": read_nmnist,
    ".dat": read_dat,
    ".npz": read_npz,
    ".npy": read_npz,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".raw": read_evt3,
}


def read_events(path: str | Path) -> Events:
    """Read a recording of any format that is known by its ending.

    Raises:
        UserError: an ending that is not known, or a file that is not what its ending says.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: files of events end with {', '.join(READERS)}; the nearest are {nearest(path.suffix, READERS)}"
        )
    return reader(path)
