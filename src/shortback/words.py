"""Words for numbers."""

from __future__ import annotations


def quantity(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun, `1 class` or `2 classes`; the plural `many` defaults to `one` with an s."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {many or f'{one}s'}"
