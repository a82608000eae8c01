"""A bar of progress on stderr, where there is much to wait for."""

from collections.abc import Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

_Result = TypeVar("_Result")


def shown(results: Iterator[_Result], what: str, number: int, *, from_number: int) -> Iterator[_Result]:
    """The same results, with a bar while they are taken.

    Args:
        number: of results that there will be.
        from_number: the least of them that a bar is drawn for.
    """
    if number < from_number:
        return results
    return iter(track(results, what, total=number, transient=True, console=Console(stderr=True)))
