"""Read events from NumPy files and from HDF5."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shortback.data.events.recording import Events, MissingLibraryError
from shortback.data.events.sensor import Size, agreed
from shortback.data.transient import is_transient
from shortback.errors import UserError

FIELDS = ("t", "x", "y", "p")
NAMES = {  # usual names of each field
    "t": ("t", "ts", "time", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity", "polarities", "on"),
}


def read_npz(path: Path, *, sensor: Size | None = None) -> Events:
    """Read `t` (microseconds), `x`, `y` and `p` (1 is ON) from an npz file, or from the fields of an npy file.

    An npz file may also contain `height` and `width` of the sensor, in pixels. `timestamp`, `polarity` and other usual
    names of the four are accepted too.

    Args:
        path: the file.
        sensor: height and width, in pixels, for files that do not contain them.

    Raises:
        UserError: the file is damaged, one of the four is missing, their lengths differ, there is no event, or the file
            gives another size.
        SensorUnknownError: neither the file nor `sensor` gives the size.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {name: loaded[name] for name in loaded.dtype.names or ()}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile, zlib and NumPy raise nearly anything on damaged bytes
        if is_transient(error) and not isinstance(error, MemoryError):  # a damaged header may ask for any amount
            raise
        raise UserError(f"{path}: cannot be read as a NumPy file: {error}") from None
    return from_fields(arrays, path, sensor=sensor)


def read_hdf5(path: Path, *, sensor: Size | None = None) -> Events:
    """Read datasets `t`, `x`, `y` and `p`, at the top level of an HDF5 file or in a group `events`.

    `events` may also be a single dataset with these fields. `height` and `width` may be datasets or attributes, of
    `events` or of the file.

    Raises:
        UserError: the extra `events` or a filter of the file is not installed, or as in `read_npz`.
        SensorUnknownError: neither the file nor `sensor` gives the size.
    """
    if importlib.util.find_spec("h5py") is None:
        raise MissingLibraryError(f"{path}: HDF5 needs h5py: pip install 'shortback[events]'")
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:  # which disks on a network may not have
            found: Any = file.get("events", file)
            names = found.dtype.names or () if isinstance(found, h5py.Dataset) else found
            wanted = {*itertools.chain(*NAMES.values()), "height", "width"}
            chosen = [name for name in names if name.lower() in wanted]
            for dataset in [found] if isinstance(found, h5py.Dataset) else map(found.get, chosen):
                _need_filters(dataset, path)
            arrays = {name: found[name][()] for name in chosen}
            for name in ("height", "width"):
                said = [each.attrs[name] for each in (found, file) if name in each.attrs]
                dataset: Any = file.get(name)
                said += [dataset[()]] if getattr(dataset, "size", 0) == 1 else []  # no group, nor one for each event
                arrays |= {name: said[0]} if said and name not in arrays else {}
    except MissingLibraryError:
        raise
    except Exception as error:  # h5py raises nearly anything on damaged bytes, or where an array is expected
        if is_transient(error) and not isinstance(error, MemoryError):
            raise
        raise UserError(f"{path}: cannot be read as HDF5: {error}") from None
    return from_fields(arrays, path, sensor=sensor)


def _need_filters(dataset: Any, path: Path) -> None:
    """Raise `MissingLibraryError` if the bytes of a dataset went through a filter that is not installed."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        return
    created = dataset.id.get_create_plist()
    for number in {created.get_filter(index)[0] for index in range(created.get_nfilters())}:
        with contextlib.suppress(ImportError):
            if not h5py.h5z.filter_avail(number):
                importlib.import_module("hdf5plugin")  # the usual filters, which it registers when imported
        if not h5py.h5z.filter_avail(number):
            raise MissingLibraryError(
                f"{path}: is compressed by HDF5 filter {number}, which is not installed: pip install hdf5plugin has "
                "the usual ones; that of a camera's maker comes with its software"
            )


def known_names(names: Iterable[str]) -> dict[str, str]:
    """Map `t`, `x`, `y` and `p` to the given names that stand for them, if any."""
    by_small = {name.lower(): name for name in names}
    return {field: by_small[each] for field, known in NAMES.items() for each in reversed(known) if each in by_small}


def from_fields(arrays: Mapping[str, Any], path: Path, *, sensor: Size | None) -> Events:
    """Make `Events` from named arrays `[n]`.

    Args:
        arrays: the content of a file, which may include `height` and `width`.
        path: the file, for messages.
        sensor: height and width, in pixels, if they are not included.

    Raises:
        UserError: as in `read_npz`.
        SensorUnknownError: neither `arrays` nor `sensor` gives the size.
    """
    found = known_names(arrays)
    missing = [name for name in FIELDS if name not in found]
    if missing:
        raise UserError(
            f"{path}: has no {', '.join(missing)}; it needs t (microseconds), x, y and p (1 is ON), but has "
            f"{', '.join(arrays) or 'no named arrays'}"
        )
    t, x, y, p = (np.asarray(arrays[found[name]]) for name in FIELDS)
    if len({array.shape for array in (t, x, y, p)}) > 1 or t.ndim != 1:
        shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in zip(FIELDS, (t, x, y, p), strict=True))
        raise UserError(f"{path}: t, x, y and p must be one-dimensional and of the same length, not {shapes}")
    lower = {name.lower(): name for name in arrays}
    sizes = {name: np.asarray(arrays[lower[name]]) for name in ("height", "width") if name in lower}
    for name, value in sizes.items():
        if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all() or value.item() < 1:
            raise UserError(f"{path}: {name} must be one number of pixels, not {reprlib.repr(value.tolist())}")
    height, width = (int(sizes[name].item()) if name in sizes else None for name in ("height", "width"))
    height, width = agreed(height, width, sensor, name=str(path))
    return Events.checked(t=t, x=x, y=y, on=p, height=height, width=width, name=str(path))
