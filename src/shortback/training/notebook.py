"""A notebook progress bar made with IPython alone: no widgets needed, and a saved notebook shows its last state."""

from __future__ import annotations

import html
import sys
import time

SECONDS_BETWEEN = 0.25  # between updates, each of which goes through the kernel's sockets


def in_notebook() -> bool:
    """Whether this process is a notebook kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class NotebookBar:
    """A progress bar below the running cell.

    Args:
        title: shown in front of the bar.
        total: total number of steps.
        completed: number of steps done.
    """

    def __init__(self, title: str, *, total: int, completed: int = 0) -> None:
        from IPython.display import display

        self.title, self.total, self.completed, self.numbers = title, total, completed, ""
        self._shown = time.monotonic()
        self._handle = display(self, display_id=True)

    def update(self, completed: int, numbers: str | None = None) -> None:
        """Set the number of steps done, and, if given, the `numbers` shown behind the bar."""
        self.completed, self.numbers = completed, self.numbers if numbers is None else numbers
        if time.monotonic() - self._shown >= SECONDS_BETWEEN:
            self.show()

    def show(self) -> None:
        """Redraw the bar now."""
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
