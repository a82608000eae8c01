"""Words for numbers."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number and what it is of: `1 class`, `2 classes`; `many` is `one` with an s if it is not given."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {many or f'{one}s'}"
