"""A progress bar on stderr for long operations."""

from collections.abc import Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

_Result = TypeVar("_Result")


def shown(results: Iterator[_Result], what: str, number: int, *, from_number: int) -> Iterator[_Result]:
    """Yield `results` unchanged, drawing a progress bar as they are consumed.

    Args:
        results: the results to pass on.
        what: description of the work, shown beside the bar.
        number: number of results.
        from_number: smallest `number` for which a bar is drawn.
    """
    if number < from_number:
        return results
    return iter(track(results, what, total=number, transient=True, console=Console(stderr=True)))
