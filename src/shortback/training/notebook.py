"""A progress bar in a notebook, by IPython alone: no widgets are needed, and what is saved shows how it ended."""

from __future__ import annotations

import html
import sys
import time

SECONDS_BETWEEN = 0.25  # updates, each of which goes through the kernel's sockets


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class NotebookBar:
    """A bar below the cell that runs.

    Args:
        title: before it.
        total: steps of the whole.
        completed: of which so many are done.
    """

    def __init__(self, title: str, *, total: int, completed: int = 0) -> None:
        from IPython.display import display

        self.title, self.total, self.completed, self.numbers = title, total, completed, ""
        self._shown = time.monotonic()
        self._handle = display(self, display_id=True)

    def update(self, completed: int, numbers: str | None = None) -> None:
        """So many steps are done; `numbers` stand behind the bar until there are others."""
        self.completed, self.numbers = completed, self.numbers if numbers is None else numbers
        if time.monotonic() - self._shown >= SECONDS_BETWEEN:
            self.show()

    def show(self) -> None:
        """Draw it as it is now."""
        self._shown = time.monotonic()
        assert self._handle is not None
        self._handle.update(self)

    def __repr__(self) -> str:
        return f"{self.title} {self.completed}/{self.total} {self.numbers}".rstrip()

    def _repr_html_(self) -> str:
        words = html.escape(f"{self.completed}/{self.total} {self.numbers}")
        return (
            f"{html.escape(self.title)} <progress max='{self.total}' value='{self.completed}'></progress> "
            f"<small>{words}</small>"
        )
