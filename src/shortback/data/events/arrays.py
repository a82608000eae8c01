"""Events in NumPy's own files, and in HDF5."""

from __future__ import annotations

import importlib.util
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shortback.data.events.recording import Events, MissingLibraryError
from shortback.errors import UserError

FIELDS = ("t", "x", "y", "p")


def read_npz(path: Path) -> Events:
    """Read `t` (microseconds), `x`, `y` and `p` (1 is ON) from an npz file, or from the fields of an npy file.

    The file may have `height` and `width` beside them; without, the sensor ends at the last pixel that fired.

    Raises:
        UserError: one of the four is missing, they are of different lengths, or there is no event.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {name: loaded[name] for name in loaded.dtype.names or ()}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile, zlib and NumPy raise nearly anything on damaged bytes
        raise UserError(f"{path}: cannot be read as NumPy's file: {error}") from None
    return _from_fields(arrays, path)


def read_hdf5(path: Path) -> Events:
    """Read datasets `t`, `x`, `y` and `p`, at the top of an HDF5 file or within a group `events`.

    `events` may as well be one dataset with these fields.

    Raises:
        UserError: the extra `events` is not installed, or see `read_npz`.
    """
    if importlib.util.find_spec("h5py") is None:
        raise MissingLibraryError(f"{path}: HDF5 needs h5py: pip install 'shortback[events]'")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found: Any = file.get("events", file)
            names = found.dtype.names or () if isinstance(found, h5py.Dataset) else found
            arrays = {name: found[name][()] for name in (*FIELDS, "height", "width") if name in names}
    except Exception as error:  # the library raises nearly anything on damaged bytes, or where a group is for an array
        raise UserError(f"{path}: cannot be read as HDF5: {error}") from None
    return _from_fields(arrays, path)


def _from_fields(arrays: Mapping[str, Any], path: Path) -> Events:
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}; it needs t (microseconds), x, y and p (1 is ON)")
    t, x, y, p = (np.asarray(arrays[name]) for name in FIELDS)
    if len({array.shape for array in (t, x, y, p)}) > 1 or t.ndim != 1:
        shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in zip(FIELDS, (t, x, y, p), strict=True))
        raise UserError(f"{path}: t, x, y and p must be as long as each other, not {shapes}")
    sizes = {name: np.asarray(arrays[name]) for name in ("height", "width") if name in arrays}
    for name, value in sizes.items():
        if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all() or value.item() < 1:
            raise UserError(f"{path}: {name} must be one number of pixels, not {reprlib.repr(value.tolist())}")
    height, width = (int(sizes[name].item()) if name in sizes else None for name in ("height", "width"))
    return Events.checked(t=t, x=x, y=y, on=p, height=height, width=width, name=str(path))
