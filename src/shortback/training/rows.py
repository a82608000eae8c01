"""The rows of `metrics.jsonl`, and functions to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from shortback.errors import UserError


class _Row(TypedDict):
    """The fields of every row: the numbers of the optimizer step and of the epoch in progress, from 1."""

    step: int
    epoch: int


class _Means(_Row):
    """Means over the images since the previous row of the same kind.

    Attributes:
        loss, sum_accuracy: of what is trained, main output and branches combined.
        main_loss, accuracy: of the main output alone, which inference uses; accuracies are None in a regression.
        images_per_second: throughput of the steps.
        coefficient: the balance coefficient of the last step.
    """

    loss: float
    main_loss: float
    accuracy: float | None
    sum_accuracy: float | None
    images_per_second: float
    coefficient: float


class BranchMeans(TypedDict):
    """Means over the last batch before a row, by the place of the branch."""

    branch_loss: dict[str, float]
    branch_accuracy: dict[str, float | None]


class StepRow(_Means):
    """A row every `log_every` steps.

    Attributes:
        learning_rate: learning rate of the last step.
        gradient_norm: norm of the whole gradient of the last step, before clipping.
        branches: present if branches were computed.
    """

    kind: Literal["step"]
    learning_rate: float
    gradient_norm: float
    branches: NotRequired[BranchMeans]


class EpochRow(_Means):
    """A row every epoch.

    Attributes:
        branch_share: the branches' share of the first layer's gradient at the start of the epoch; None without
            branches.
        seconds: duration of the training so far.
        val_accuracy: None without a validation split, and in a regression.
        val_loss: None without a validation split, and if it is not finite.
    """

    kind: Literal["epoch"]
    branch_share: float | None
    seconds: float
    val_accuracy: float | None
    val_loss: float | None


class HealthRow(_Row):
    """The gradients as measured right before `step`, see `shortback.health.Judgement`.

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
    """Read all rows of a file, without an incomplete last line; the list is empty if there is no file.

    Raises:
        UserError: a line is not a row; the message has its number.
    """
    path = Path(path)
    return [_parsed(line, path, number) for number, line in enumerate(complete_lines(path), 1)]


def read_epochs(path: Path) -> list[EpochRow]:
    """Read only the rows of the epochs; others are not parsed, since rows about gradients are long."""
    numbered = enumerate(complete_lines(path), 1)
    return [cast(EpochRow, _parsed(line, path, n)) for n, line in numbered if line.startswith('{"kind": "epoch"')]


def last_row(path: Path) -> Row | None:
    """Read the last row of a file; None if there is none."""
    lines = complete_lines(path)
    return _parsed(lines[-1], path, len(lines)) if lines else None


def complete_lines(path: Path) -> list[str]:
    """Read the complete lines of a file: the last one may be partial if a run is in progress or was killed."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not {"kind", "step"} <= row.keys():
        raise UserError(f"{path}, line {number}: is not a row of a run: {line.strip()[:60]!r}")
    return row
