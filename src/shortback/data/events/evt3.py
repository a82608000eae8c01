"""EVT 3.0, the raw format of Prophesee's cameras, read with the library `evt3`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from shortback.data.events.evt2 import header_of, size_in
from shortback.data.events.recording import Events, MissingLibraryError
from shortback.data.events.sensor import Size, agreed
from shortback.data.transient import is_transient
from shortback.errors import UserError


def read_evt3(path: Path, *, sensor: Size | None = None) -> Events:
    """Read the changes of brightness in a `.raw` file; triggers are skipped.

    Args:
        path: the file.
        sensor: height and width, in pixels, if the header does not give them; 720 and 1280 by default.

    Raises:
        UserError: the extra `events` is not installed, another format, no event, or the header gives another size.
    """
    if importlib.util.find_spec("evt3") is None:
        raise MissingLibraryError(f"{path}: EVT 3.0 needs the library evt3: pip install 'shortback[events]'")
    import evt3

    with path.open("rb") as file:
        header = file.read(4096)
    if b"evt 3.0" not in header.lower() and b"evt3" not in header.lower():
        raise UserError(f"{path}: is not an EVT 3.0 or EVT 2.0 file: its header does not say so")
    try:
        events = evt3.decode_file(str(path))
    except (OSError, ValueError) as error:
        if is_transient(error):
            raise
        raise UserError(f"{path}: cannot be read as EVT 3.0: {error}") from None
    height, width = agreed(*size_in(header_of(header)[0]), sensor, name=str(path))
    return Events.checked(
        t=events.t,
        x=events.x,
        y=events.y,
        on=events.p,
        height=height or events.sensor_height,
        width=width or events.sensor_width,
        name=str(path),
    )
