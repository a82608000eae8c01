"""Loggers that pass the numbers of a run to other software: TensorBoard, wandb, mlflow, and CSV files."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shortback.choices import LoggerKind, check_choice
from shortback.errors import UserError
from shortback.files import replacing, write_text
from shortback.training.loggers import Logger, ResumableLogger, Row
from shortback.training.rows import complete_lines


def check_tracker(kind: LoggerKind) -> None:
    """Raise `UserError` if there is no such kind of logger, or its package is not installed."""
    check_choice("logger", kind, LoggerKind)
    if importlib.util.find_spec(kind) is None:  # csv is Python's own
        raise UserError(f"{kind} is not installed: pip install 'shortback[{kind}]'")


def make_tracker(kind: LoggerKind, folder: Path, *, settings: Mapping[str, Any] | None = None) -> Logger:
    """Create a logger by name.

    Args:
        kind: `"csv"`, `"tensorboard"`, `"wandb"` or `"mlflow"`.
        folder: folder of the run; local files go into a subfolder named after `kind`.
        settings: hyper-parameters, possibly nested.

    Raises:
        UserError: the package is not installed, or there is no such kind.
    """
    check_tracker(kind)
    return TRACKERS[kind](folder / kind, settings=settings)


class Tracker(ResumableLogger):
    """Base class of loggers that take rows as named numbers, and a picture of every check of the gradient.

    A subclass, such as a logger of your own, implements `open`, `put`, `draw` and `end`, or some of them.

    Args:
        folder: folder for local files; created if missing.
        settings: hyper-parameters, possibly nested.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, Any] | None = None) -> None:
        self.folder, self.settings = Path(folder), dict(settings or {})
        self.last: dict[str, float] = {}
        self._handled: BaseException | None = None

    def open(self, step: int) -> None:
        """Training starts or resumes after `step` optimizer steps; numbers of later steps will be put again."""

    def put(self, step: int, kind: str, numbers: dict[str, float]) -> None:
        """Record the numbers of a row; their names begin with its kind, as in `"epoch/val_accuracy"`."""

    def draw(self, step: int, name: str, figure: Any) -> None:
        """Record a matplotlib figure."""

    def end(self, *, failed: bool) -> None:
        """Training ended; `failed` if by an exception."""

    def start(self, *, step: int, total_steps: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._handled = sys.exc_info()[1]  # not None if training runs within an `except` block
        self.open(step)

    def log(self, row: Row) -> None:
        numbers = dict(_numbers(row))
        self.last |= {name: value for name, value in numbers.items() if name.startswith("epoch/")}
        self.put(row["step"], row["kind"], numbers)
        if row["kind"] == "health" and type(self).draw is not Tracker.draw:
            from shortback.health.plots import gradient_by_layer

            by_layer = {"whole loss": row["layers"]["relative"]}
            self.draw(row["step"], "gradient by layer", gradient_by_layer(by_layer))

    def advance(self, step: int) -> None:
        pass

    def close(self) -> None:
        self.end(failed=sys.exc_info()[1] is not self._handled)  # called while an exception of the training propagates

    def run_id(self, made: str) -> str:
        """The run's identifier in the other software: `made` at the first call, and the same thereafter."""
        file = self.folder / "run_id"
        if not file.exists():
            write_text(file, made)
        return file.read_text()


def _numbers(row: Row) -> Iterator[tuple[str, float]]:
    """The numbers of a row by name; those by layer are left out, those by branch are named with its place."""
    kind = row["kind"]
    for key, value in row.items():
        if key == "branches":
            for quantity, by_place in value.items():
                for place, number in by_place.items():
                    if number is not None:
                        yield f"{kind}/{quantity}/{place}", number
        elif isinstance(value, int | float) and key not in ("step", "epoch"):
            yield f"{kind}/{key}", value


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


class Csv(Tracker):
    """Writes a file for each kind of row, `step.csv`, `epoch.csv`, `health.csv`, with the optimizer step first.

    When a run is resumed, rows that will be logged again are deleted, as in `metrics.jsonl`.
    """

    def open(self, step: int) -> None:
        self._columns: dict[Path, list[str]] = {}
        for file in self.folder.glob("*.csv"):
            rows = self._rows(file) if step else []
            self._write(file, [r for r in rows if not self.will_be_logged_again(file.stem, int(r["step"]), done=step)])

    def put(self, step: int, kind: str, numbers: dict[str, float]) -> None:
        row = {"step": step, **{name.removeprefix(f"{kind}/"): value for name, value in numbers.items()}}
        file = self.folder / f"{kind}.csv"
        columns = self._columns.get(file, [])
        if set(row) <= set(columns):
            with file.open("a", newline="") as stream:
                csv.DictWriter(stream, columns).writerow(row)
        else:
            self._write(file, [*(self._rows(file) if file.exists() else []), row])

    def _rows(self, file: Path) -> list[dict[str, Any]]:
        return list(csv.DictReader(complete_lines(file)))

    def _write(self, file: Path, rows: list[dict[str, Any]]) -> None:
        columns = self._columns[file] = list(dict.fromkeys(name for row in rows for name in row))
        with replacing(file) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)


class TensorBoard(Tracker):
    """Writes scalars of every row, histograms and a picture over the layers, and the settings with the last epoch.

    What a killed run wrote after its checkpoint is hidden. If a run resumes from a checkpoint at the last step of
    an epoch, written before the epoch's row, that epoch has two points.
    """

    _writer: Any = None

    def open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1)

    def log(self, row: Row) -> None:
        import torch

        super().log(row)
        for key in ("layers", "neurons"):
            for quantity, by_layer in row.get(key, {}).items():
                numbers = [number for number in by_layer.values() if number is not None]
                if numbers:
                    self._writer.add_histogram(f"{row['kind']}/{quantity}", torch.tensor(numbers), row["step"])

    def put(self, step: int, kind: str, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def draw(self, step: int, name: str, figure: Any) -> None:
        self._writer.add_figure(name, figure, step)

    def end(self, *, failed: bool) -> None:
        from torch.utils.tensorboard.summary import hparams

        if self._writer is None:
            return
        if self.settings and self.last:
            taken = bool | int | float | str
            usable = {key: v if isinstance(v, taken) else str(v) for key, v in flat(self.settings).items()}
            for summary in hparams(usable, dict.fromkeys(self.last)):
                self._writer.file_writer.add_summary(summary)
        self._writer.close()


class WandB(Tracker):
    """Logs to a Weights & Biases run, configured by its environment variables (`WANDB_PROJECT`, `WANDB_MODE=offline`).

    Rows that a killed run wrote after its checkpoint appear twice, as wandb cannot delete them.
    """

    _run: Any = None

    def open(self, step: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "shortback"),
            name=os.environ.get("WANDB_NAME", self.folder.absolute().parent.name),
            id=self.run_id(secrets.token_hex(4)),
            resume="allow",
            dir=str(self.folder),
            config=self.settings,
            settings=wandb.Settings(silent=True),
        )
        self._run.define_metric("optimizer step")
        self._run.define_metric("*", step_metric="optimizer step")

    def put(self, step: int, kind: str, numbers: dict[str, float]) -> None:
        self._run.log({"optimizer step": step, **numbers})

    def draw(self, step: int, name: str, figure: Any) -> None:
        import wandb

        figure.savefig(self.folder / "picture.png", dpi=110, facecolor="white")
        self._run.log({"optimizer step": step, name: wandb.Image(str(self.folder / "picture.png"))})

    def end(self, *, failed: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


class MLflow(Tracker):
    """Logs to an mlflow run, configured by `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME`.

    Rows that a killed run wrote after its checkpoint appear twice, as mlflow cannot delete them.
    """

    _client: Any = None

    def open(self, step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "shortback")
        experiment = client.get_experiment_by_name(name)
        if (self.folder / "run_id").exists():
            self._id = self.run_id("")
            client.update_run(self._id, status="RUNNING")
            return
        number = client.create_experiment(name) if experiment is None else experiment.experiment_id
        run = client.create_run(number, run_name=self.folder.absolute().parent.name)
        self._id = self.run_id(run.info.run_id)
        params = [Param(key, str(value)[:6000]) for key, value in flat(self.settings).items()]
        for first in range(0, len(params), 100):  # mlflow's limit per call
            client.log_batch(self._id, params=params[first : first + 100])

    def put(self, step: int, kind: str, numbers: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in numbers.items() if not math.isnan(value)]
        for first in range(0, len(metrics), 1000):
            self._client.log_batch(self._id, metrics=metrics[first : first + 1000])

    def draw(self, step: int, name: str, figure: Any) -> None:
        self._client.log_figure(self._id, figure, f"{name}/{step}.png")

    def end(self, *, failed: bool) -> None:
        if self._client is not None:
            self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


TRACKERS: dict[LoggerKind, type[Tracker]] = {"csv": Csv, "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
