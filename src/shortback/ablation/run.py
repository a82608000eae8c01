"""One run of an ablation, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortback.ablation.grid import Settings, on_one_line
from shortback.ablation.workers import ERROR_FILE
from shortback.runs.folder import RunFolder
from shortback.runs.summary import Summary
from shortback.training.rows import EpochRow, Row, last_row, read_epochs


@dataclass(frozen=True)
class CellRun:
    """The run of one cell, as read from its folder.

    Attributes:
        settings: the axes that affect its method, with their values as text.
        method, seed: of the run.
        folder: path of its folder, within the ablation.
        summary: None if it is not finished.
        error: why it failed, if it did.
        epochs: the rows of the epochs.
        last: the last row of any kind.
        recipe: all of its settings except the location of the data; None if it has not begun.
    """

    settings: Settings
    method: str
    seed: int
    folder: str
    summary: Summary | None
    error: str | None
    epochs: list[EpochRow]
    last: Row | None
    recipe: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def setting(self) -> str:
        """The values of the axes on one line; empty if there are none."""
        return on_one_line(self.settings)

    @property
    def status(self) -> str:
        if self.summary is not None:
            return "finished"
        return "failed" if self.error else "unfinished" if self.last else "not begun"

    @property
    def tested_on(self) -> str:
        """The split of its test accuracy: `validation` if `compare` was given no test split."""
        return str((self.summary or {}).get("tested_on", "test"))

    def curve(self, key: str) -> list[tuple[int, float]]:
        """The values of a key at the ends of epochs, as `(step, value)`, without missing ones."""
        return [(row["step"], row[key]) for row in self.epochs if row.get(key) is not None]


def read_run(settings: Settings, method: str, seed: int, path: Path, *, within: Path) -> CellRun:
    """Read the run in a folder, however much of it is there."""
    folder, error = RunFolder(path), path / ERROR_FILE
    recipe = None
    if folder.recipe.exists():
        recipe = folder.read_recipe().without_paths().model_dump(mode="json")
    return CellRun(
        settings=settings,
        method=method,
        seed=seed,
        folder=str(path.relative_to(within)),
        summary=folder.read_summary() if folder.is_finished else None,
        error=error.read_text(errors="replace").strip() if error.exists() and not folder.is_finished else None,
        epochs=read_epochs(folder.metrics),
        last=last_row(folder.metrics),
        recipe=recipe,
    )
