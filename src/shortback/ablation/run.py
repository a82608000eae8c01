"""One run of an ablation, as its folder has it."""

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
    """One cell as its folder has it.

    Attributes:
        settings: the axes that its method heeds, and their values in words.
        method, seed: of the run.
        folder: where it is, within the ablation.
        summary: None if it is not finished.
        error: why it failed, if it did.
        epochs: the rows of the epochs.
        last: the last row of any kind.
        recipe: all of its settings but where the data lies; None if it has not begun.
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
        """The values of the axes in a line; empty without any."""
        return on_one_line(self.settings)

    @property
    def status(self) -> str:
        if self.summary is not None:
            return "finished"
        return "failed" if self.error else "unfinished" if self.last else "not begun"

    @property
    def tested_on(self) -> str:
        """The split that its test accuracy is of: `validation` where `compare` was given no other."""
        return str((self.summary or {}).get("tested_on", "test"))

    def curve(self, key: str) -> list[tuple[int, float]]:
        """A number by step, over the epochs."""
        return [(row["step"], row[key]) for row in self.epochs if row.get(key) is not None]


def read_run(settings: Settings, method: str, seed: int, path: Path, *, within: Path) -> CellRun:
    """The run in a folder, whatever is there of it."""
    folder, error = RunFolder(path), path / ERROR_FILE
    recipe = None
    if folder.recipe.exists():
        recipe = folder.read_recipe().model_dump(mode="json")
        recipe["data"]["root"] = None
    return CellRun(
        settings=settings,
        method=method,
        seed=seed,
        folder=str(path.relative_to(within)),
        summary=folder.read_summary() if folder.is_finished else None,
        error=error.read_text().strip() if error.exists() and not folder.is_finished else None,
        epochs=read_epochs(folder.metrics),
        last=last_row(folder.metrics),
        recipe=recipe,
    )
