"""The rows of `metrics.jsonl`: what is in them, and the one way to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from shortback.errors import UserError


class _Row(TypedDict):
    """What every row has: `step` optimizer steps were done; `epoch` is the one under way, from 1."""

    step: int
    epoch: int


class _Means(_Row):
    """Means over the images since the row before of the kind.

    Attributes:
        loss, sum_accuracy: of what is trained.
        main_loss, accuracy: of the main output alone, which is what inference has. A regression has no accuracy.
        images_per_second: of the steps.
        coefficient: of the last step.
    """

    loss: float
    main_loss: float
    accuracy: float | None
    sum_accuracy: float | None
    images_per_second: float
    coefficient: float


class BranchMeans(TypedDict):
    """Of the batch of a row, by the place of the branch."""

    branch_loss: dict[str, float]
    branch_accuracy: dict[str, float | None]


class StepRow(_Means):
    """A row every `log_every` steps.

    Attributes:
        learning_rate: of the last step.
        gradient_norm: of the whole gradient of the last step, before it is clipped.
        branches: if there are any.
    """

    kind: Literal["step"]
    learning_rate: float
    gradient_norm: float
    branches: NotRequired[BranchMeans]


class EpochRow(_Means):
    """A row an epoch.

    Attributes:
        branch_share: of the branches in the first layer's gradient at the start of the epoch; None without branches.
        seconds: of training so far.
        val_accuracy, val_loss: None without a validation split; the accuracy in a regression too, and the loss where
            it is no number.
    """

    kind: Literal["epoch"]
    branch_share: float | None
    seconds: float
    val_accuracy: float | None
    val_loss: float | None


class HealthRow(_Row):
    """What was seen of the gradients right before `step`: see `shortback.health.Judgement`.

    Attributes:
        layers: `relative` and `branch_share`, each by layer.
        neurons: `firing_rate`, `dead` and `in_window`, each by layer of neurons.
    """

    kind: Literal["health"]
    verdict: str
    at_layer: str | None
    reason: str
    slope: float | None
    effective_depth: int
    num_layers: int
    coefficient: float
    branch_share: float | None
    layers: dict[str, dict[str, float | None]]
    neurons: dict[str, dict[str, float | None]]


Row = StepRow | EpochRow | HealthRow


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a file; none if there is no file. A last line that was not written to its end is left out.

    Raises:
        UserError: a line that is no row, by its number.
    """
    path = Path(path)
    return [_parsed(line, path, number) for number, line in enumerate(whole_lines(path), 1)]


def read_epochs(path: Path) -> list[EpochRow]:
    """The rows of the epochs alone, without reading what is inside the others: looks at gradients are long."""
    numbered = enumerate(whole_lines(path), 1)
    return [cast(EpochRow, _parsed(line, path, n)) for n, line in numbered if line.startswith('{"kind": "epoch"')]


def last_row(path: Path) -> Row | None:
    """The last row of a file, None if there is none."""
    lines = whole_lines(path)
    return _parsed(lines[-1], path, len(lines)) if lines else None


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, each with its end: a run that is under way, or was killed, may have left half of one."""
    text = path.read_text() if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not {"kind", "step"} <= row.keys():
        raise UserError(f"{path}, line {number}: is no row of a run: {line.strip()[:60]!r}")
    return row
