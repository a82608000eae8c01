"""AEDAT 4, the format of iniVation's DV, read with the library `aedat`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from shortback.data.events.recording import Events, MissingLibraryError
from shortback.data.events.sensor import Size, agreed
from shortback.data.transient import is_transient
from shortback.errors import UserError

LINE = b"#!AER-DAT4.0\r\n"
LONGEST_HEADER = 2**24  # bytes


def read_aedat4(path: Path, *, sensor: Size | None = None) -> Events:
    """Read the first stream of polarity events; frames and whatever else the camera recorded are skipped.

    Args:
        path: the file.
        sensor: height and width, in pixels, to check those in the file against.

    Raises:
        UserError: the extra `events` is not installed, another format, damage, no stream of events, or no event.
    """
    if importlib.util.find_spec("aedat") is None:
        raise MissingLibraryError(f"{path}: AEDAT 4 needs the library aedat: pip install 'shortback[events]'")
    import aedat

    _check_header(path)
    try:
        decoder = aedat.Decoder(path)
        streams = {number: about for number, about in decoder.id_to_stream().items() if about["type"] == "events"}
        if not streams:
            raise UserError(f"{path}: has no stream of events")
        number, about = next(iter(streams.items()))
        packets = [packet["events"] for packet in decoder if packet["stream_id"] == number]
    except BaseException as error:  # a panic in the library is not an Exception
        if isinstance(error, UserError | KeyboardInterrupt | SystemExit) or is_transient(error):
            raise
        raise UserError(f"{path}: cannot be read as AEDAT 4: {error}") from None
    if not packets:
        raise UserError(f"{path}: there is no event in it")
    height, width = agreed(about["height"], about["width"], sensor, name=str(path))
    events = np.concatenate(packets)
    return Events.checked(
        t=events["t"],
        x=events["x"],
        y=events["y"],
        on=events["on"],
        height=height,
        width=width,
        name=str(path),
    )


def _check_header(path: Path) -> None:
    """Check that the XML in the header is text: on anything else the library ends the whole process.

    The file begins with a line, 32 bits with the size of the header, and the header, which contains the XML.
    """
    with path.open("rb") as file:
        line, size = file.read(len(LINE)), int.from_bytes(file.read(4), "little")
        header = file.read(min(size, LONGEST_HEADER))
    begin, end = header.find(b"<dv"), header.rfind(b"</dv>")
    if line != LINE or len(header) < size or begin < 0:
        raise UserError(f"{path}: cannot be read as AEDAT 4: its header is damaged or cut off")
    try:
        header[begin : end if end > begin else None].decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as AEDAT 4: its header is damaged: {error}") from None
