"""Log the numbers of a run to JSON lines and the terminal; `trackers` has loggers for other software."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from shortback.files import write_text
from shortback.health.report import plain
from shortback.training.notebook import NotebookBar, in_notebook
from shortback.training.rows import complete_lines, read_rows

Row = Mapping[str, Any]


class Logger(Protocol):
    """Receives rows, each with its kind under `"kind"` and an optimizer step under `"step"`.

    Rows of kind `"step"` and `"epoch"` describe the training up to that step, rows of kind `"health"` what was measured
    right before it.
    """

    def start(self, *, step: int, total_steps: int) -> None:
        """Training starts or resumes, with `step` of `total_steps` done."""
        ...

    def log(self, row: Row) -> None: ...

    def advance(self, step: int) -> None:
        """`step` optimizer steps are done; called after each step."""
        ...

    def close(self) -> None: ...


class ResumableLogger:
    """A logger that, when a run is resumed, deletes the rows that will be logged again.

    Attributes:
        epoch_end: the step at which the last finished epoch ended. The row of an epoch has the step of its last batch,
            and a checkpoint after that step may have been written before the epoch was finished.
    """

    epoch_end: int | None = None

    def will_be_logged_again(self, kind: str, step: int, *, done: int) -> bool:
        """Whether a row will be logged again by a run that resumes after `done` optimizer steps."""
        return step > done or (kind == "epoch" and self.epoch_end is not None and step > self.epoch_end)


class JsonLines(ResumableLogger):
    """Writes `metrics.jsonl`, one row per line; numbers that are not finite become null, as JSON has none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, *, step: int, total_steps: int) -> None:
        lines = zip(complete_lines(self.path), read_rows(self.path), strict=True) if step else ()
        kept = [line for line, row in lines if not self.will_be_logged_again(row["kind"], row["step"], done=step)]
        write_text(self.path, "".join(kept))

    def log(self, row: Row) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(plain(dict(row)), allow_nan=False) + "\n")

    def advance(self, step: int) -> None:
        pass

    def close(self) -> None:
        pass


class Terminal:
    """Shows a progress bar in a terminal or a notebook and plain lines elsewhere, and everywhere a line per epoch.

    Args:
        title: printed in front of every line.
        note: printed first, on a line of its own.
        has_branches: whether to print the coefficient and the branches' share even if the coefficient is 0.
        console: the console to print to; standard output by default.
    """

    def __init__(
        self, title: str, *, note: str | None = None, has_branches: bool = True, console: Console | None = None
    ) -> None:
        self.title, self.note, self.has_branches = title, note, has_branches
        self.console = console or Console(highlight=False, markup=False, soft_wrap=True, force_jupyter=False)
        self._progress: Progress | None = None
        self._bar: NotebookBar | None = None
        self._verdict: str | None = None

    def start(self, *, step: int, total_steps: int) -> None:
        if self.note is not None:
            self.console.print(f"{self.title}  {self.note}")
        if in_notebook():  # checked first: a notebook's output claims to be a terminal
            self._bar = NotebookBar(self.title, total=total_steps, completed=step)
            return
        if not self.console.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        )
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._task = self._progress.add_task(self.title, total=total_steps, completed=step, numbers="")
        self._progress.start()

    def advance(self, step: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=step)
        if self._bar is not None:
            self._bar.update(step)

    def log(self, row: Row) -> None:
        if not (self.has_branches or row["coefficient"]):
            row = {**row, "coefficient": None, "branch_share": None}
        if row["kind"] == "health":
            if row["verdict"] != self._verdict:
                self.console.print(f"{self.title}  {_health_line(row)}")
            self._verdict = row["verdict"]
        elif row["kind"] == "epoch":
            self.console.print(f"{self.title}  {_epoch_line(row)}")
        elif self._progress is not None:
            self._progress.update(self._task, numbers=_short_line(row))
        elif self._bar is not None:
            self._bar.update(row["step"], _short_line(row))
        else:
            self.console.print(f"{self.title}  step {row['step']}  {_step_line(row)}")

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if self._bar is not None:
            self._bar.show()
            self._bar = None


def _step_line(row: Row) -> str:
    return (
        f"loss {row['loss']:.3f}  {_accuracy(row, 'accuracy')}{_coefficient(row, 'coefficient')}"
        f"{row['images_per_second']:.0f} images/s"
    )


def _accuracy(row: Row, name: str, end: str = "  ") -> str:
    """Format the accuracy; empty in a regression."""
    return "" if row["accuracy"] is None else f"{name} {row['accuracy']:.1%}{end}"


def _coefficient(row: Row, name: str, end: str = "  ") -> str:
    """Format the coefficient; empty without branches."""
    return "" if row["coefficient"] is None else f"{name} {row['coefficient']:.2f}{end}"


def _health_line(row: Row) -> str:
    line = f"gradients before step {row['step']}: {row['verdict']}"
    if row["verdict"] == "healthy":
        return f"{line}, effective depth {row['effective_depth']} of {row['num_layers']} layers"
    return f"{line}: {row['reason']} (diagnose tries remedies)"


def _short_line(row: Row) -> str:
    """Format a row so that it fits beside the bar in 80 columns."""
    return (
        f"loss {row['loss']:.3g}, {_accuracy(row, 'acc', ', ')}{_coefficient(row, 'c', ', ')}"
        f"{row['images_per_second']:.0f} img/s"
    )


def _epoch_line(row: Row) -> str:
    parts = [f"epoch {row['epoch']}", f"loss {row['loss']:.3f}"]
    if row["accuracy"] is not None:
        parts.append(f"accuracy {row['accuracy']:.1%}")
    if row["val_accuracy"] is not None:
        parts.append(f"validation {row['val_accuracy']:.1%}")
    elif row.get("val_loss") is not None:
        parts.append(f"validation {row['val_loss']:.3f}")
    if row["coefficient"] is not None:
        parts.append(_coefficient(row, "coefficient", ""))
    if row["branch_share"] is not None:
        parts.append(f"branch share of the first layer's gradient {row['branch_share']:.2f}")
    parts.append(f"{row['images_per_second']:.0f} images/s")
    return "  ".join(parts)


@contextmanager
def logging_to(loggers: Sequence[Logger], *, step: int, epoch_end: int, total_steps: int) -> Iterator[None]:
    """Start loggers on entry, and close those that started on exit.

    Args:
        step: number of optimizer steps done.
        epoch_end: the step at which the last finished epoch ended.
        total_steps: number of optimizer steps of the whole training.
    """
    with ExitStack() as closing:
        for logger in loggers:
            if isinstance(logger, ResumableLogger):
                logger.epoch_end = epoch_end
            logger.start(step=step, total_steps=total_steps)
            closing.callback(logger.close)
        yield
