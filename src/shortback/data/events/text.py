"""Read events from text: one per line, in columns named by an earlier line."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shortback.data.events.arrays import FIELDS, from_fields, known_names
from shortback.data.events.recording import LARGEST, Events
from shortback.data.events.sensor import Size
from shortback.errors import UserError

COMMENTS = "#%"
DELIMITERS = (",", ";", "\t", None)
NUM_HEAD = 100  # lines that are searched for the names
POLARITIES = {"true": 1.0, "false": 0.0, "on": 1.0, "off": 0.0}


def read_text(path: Path, *, sensor: Size | None = None) -> Events:
    """Read lines of `t` (microseconds), `x`, `y` and `p` (1 is ON), separated by commas, semicolons, tabs or spaces.

    A line before the first event, which may begin with `#` or `%`, names the columns, in any order; other columns are
    ignored. Without names the file is refused, since camera programs write the four in different orders.

    Args:
        path: the file.
        sensor: height and width, in pixels, which text does not contain.

    Raises:
        UserError: no line of names, a missing name, a line that is not an event, or no event.
        SensorUnknownError: `sensor` is not given.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = [line.strip() for line in itertools.islice(file, NUM_HEAD)]
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file") from None
    names, cells, begin, delimiter = _begin(head, path)
    found = known_names(names)
    missing = [field for field in FIELDS if field not in found]
    if missing:
        raise UserError(
            f"{path}: its columns are {', '.join(names)}, and none is {', '.join(missing)}: t (microseconds), x, y and "
            "p (1 is ON) are needed"
        )
    columns = [names.index(found[field]) for field in FIELDS]
    converters: dict[int | str, Callable[[str], float]] | None = None
    if not _is_number(cells[columns[3]]):
        converters = {columns[3]: _polarity}
    try:
        with path.open(encoding="utf-8-sig") as file:
            rows = np.loadtxt(
                itertools.islice(file, begin, None),
                dtype=np.float64,
                delimiter=delimiter,
                usecols=columns,
                converters=converters,
                quotechar='"',
                ndmin=2,
            )
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as lines of {', '.join(names)}: {error}") from None
    arrays = {field: _as_written(column) for field, column in zip(FIELDS, rows.T, strict=True)}
    return from_fields(arrays, path, sensor=sensor)


def _begin(head: Sequence[str], path: Path) -> tuple[list[str], list[str], int, str | None]:
    """The names of the columns in lower case, the first event, the number of lines before it, and the delimiter."""
    for number, line in enumerate(head):
        delimiter = next((each for each in DELIMITERS if each and each in line), None)
        cells = _split(line, delimiter)
        if line[:1] in COMMENTS or not any(map(_is_number, cells)):
            continue
        for before in reversed(head[:number]):
            names = _split(before.lstrip(COMMENTS).lower(), delimiter)
            if len(names) == len(cells) and len(known_names(names)) > 1:
                return names, cells, number, delimiter
        break
    else:
        if any(
            len(known_names(_split(line.lstrip(COMMENTS).lower(), each))) > 1 for line in head for each in DELIMITERS
        ):
            raise UserError(f"{path}: there is no event in it")
    raise UserError(
        f"{path}: no line before the first event names its columns. Add one with the names in their order, such as\n"
        "    t,x,y,p\n(t in microseconds, x the column, y the row, p 1 for ON and 0 for OFF)"
    )


def _as_written(column: np.ndarray) -> np.ndarray:
    """Convert whole numbers to integers: as floats they might be taken for times in seconds."""
    whole = bool((np.abs(column) < LARGEST).all() and (column == np.trunc(column)).all())
    return column.astype(np.int64) if whole else column


def _split(line: str, delimiter: str | None) -> list[str]:
    return [word.strip().strip("\"'") for word in line.strip().split(delimiter)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _polarity(cell: str) -> float:
    known = POLARITIES.get(cell.strip().lower())
    return float(cell) if known is None else known
