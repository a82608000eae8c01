"""What other software has of a training, read by that software itself, without a network."""

import contextlib
import csv
import json
import math
import struct
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from shortback.errors import UserError
from shortback.training import Tracker, choose_execution, fit, make_tracker
from shortback.training.loggers import logging_to
from shortback.training.trackers import check_tracker, flat
from tests.training.test_loggers import EPOCH, STEP

HEALTH = {
    "kind": "health",
    "step": 0,
    "epoch": 1,
    "verdict": "healthy",
    "slope": -0.5,
    "layers": {"relative": {"a": 0.1, "b": 0.2}, "branch_share": {"a": 0.0, "b": None}},
    "neurons": {"dead": {"n": 0.25}},
}
BRANCHED = {**STEP, "branches": {"branch_loss": {"layer1.0": 2.0}, "branch_accuracy": {"layer1.0": None}}}
SETTINGS = {"method": "shortcut", "train": {"epochs": 2, "loggers": ["csv"]}}


def log(kind, folder, rows=(HEALTH, BRANCHED, EPOCH), *, step=0):
    tracker = make_tracker(kind, folder, settings=SETTINGS)
    tracker.start(step=step, total_steps=8)
    for row in rows:
        tracker.log(row)
        tracker.advance(row["step"])
    tracker.close()
    return folder / kind


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_csv_is_a_table_that_goes_on_and_widens(tmp_path):
    folder = log("csv", tmp_path)
    (row,) = table(folder / "step.csv")
    assert (row["step"], row["loss"], row["branch_loss/layer1.0"]) == ("2", "1.25", "2.0")
    assert table(folder / "epoch.csv")[0]["val_accuracy"] == "0.625"
    later = [{**STEP, "step": 6}, {**STEP, "step": 8, "new": 7.0}]
    log("csv", tmp_path, [{**STEP, "step": 4, "loss": 9.0}], step=2)  # gone back to by the next
    log("csv", tmp_path, later, step=2)
    rows = table(folder / "step.csv")
    assert [row["step"] for row in rows] == ["2", "6", "8"]
    assert [row["new"] for row in rows] == ["", "", "7.0"]
    assert [row["branch_loss/layer1.0"] for row in rows] == ["2.0", "", ""]
    log("csv", tmp_path, [STEP])  # begun anew
    assert len(table(folder / "step.csv")) == 1


def test_csv_forgets_the_row_of_an_epoch_that_comes_again(tmp_path):
    """As of a checkpoint after the last batch of an epoch, whose row, of the same step, was written after it."""
    log("csv", tmp_path, [STEP, EPOCH, {**STEP, "step": 8}, {**EPOCH, "step": 8}])
    tracker = make_tracker("csv", tmp_path)
    with logging_to([tracker], step=8, epoch_end=4, total_steps=8):
        tracker.log({**EPOCH, "step": 8, "loss": 7.0})
    assert [(row["step"], row["loss"]) for row in table(tmp_path / "csv" / "epoch.csv")] == [
        ("4", "1.25"),
        ("8", "7.0"),
    ]
    assert [row["step"] for row in table(tmp_path / "csv" / "step.csv")] == ["2", "8"]


def test_csv_outlives_a_kill_in_mid_line_and_in_mid_file(tmp_path, monkeypatch):
    folder = log("csv", tmp_path, [{**STEP, "step": 20}, {**STEP, "step": 40}])
    file = folder / "step.csv"
    whole = file.read_bytes()
    file.write_bytes(whole + b"6")  # of 60
    log("csv", tmp_path, [{**STEP, "step": 60}], step=40)
    assert [row["step"] for row in table(file)] == ["20", "40", "60"]
    whole = file.read_bytes()

    def killed(self, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(csv.DictWriter, "writerows", killed)
    with pytest.raises(KeyboardInterrupt):
        log("csv", tmp_path, [], step=60)
    assert file.read_bytes() == whole


def test_tensorboard_has_numbers_histograms_a_picture_and_settings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = log("tensorboard", tmp_path)
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert {"step/loss", "step/branch_loss/layer1.0", "epoch/val_accuracy", "health/slope"} <= set(tags["scalars"])
    assert {"health/relative", "health/dead"} <= set(tags["histograms"])
    assert tags["images"] == ["gradient by layer"]
    (loss,) = events.Scalars("step/loss")
    assert (loss.step, loss.value) == (2, 1.25)
    session = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"train.epochs" in session
    assert b"shortcut" in session


def leveldb_records(content):
    """The records of a file of wandb: those of LevelDB's log, in blocks of 32 KiB, after 7 bytes of its own."""
    assert content.startswith(b":W&B")
    at, record = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no room for a head
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = log("wandb", tmp_path)
    name = (folder / "run_id").read_text()
    log("wandb", tmp_path, [{**STEP, "step": 4}], step=2)

    def written():
        """Loss by step, settings, and the names of runs, of what is on the disk by now."""
        numbers, config, names = {}, {}, set()
        for file in folder.glob("wandb/offline-run-*/*.wandb"):
            names.add(file.stem)
            for data in leveldb_records(file.read_bytes()):
                record = wandb_internal_pb2.Record.FromString(data)
                values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                if "step/loss" in values:
                    numbers[values["optimizer step"]] = values["step/loss"]
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        return numbers, config, names

    until = time.monotonic() + 60
    while len(written()[0]) < 2 and time.monotonic() < until:  # a process of its own writes, after the end of a run
        time.sleep(0.1)
    numbers, config, names = written()
    assert numbers == {2: 1.25, 4: 1.25}
    assert names == {f"run-{name}"}
    assert config["method"] == "shortcut"
    assert list(folder.rglob("media/images/*.png"))


def test_mlflow_on_this_disk(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    run = (log("mlflow", tmp_path / "run") / "run_id").read_text()
    log("mlflow", tmp_path / "run", [{**STEP, "step": 4, "loss": 0.5}, {**STEP, "step": 6, "loss": math.nan}], step=2)
    client = MlflowClient()
    found = client.get_run(run)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert client.get_experiment(found.info.experiment_id).name == "mine"
    assert found.data.params["train.epochs"] == "2"
    history = client.get_metric_history(run, "step/loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(2, 1.25), (4, 0.5)]
    (pictures,) = client.list_artifacts(run)
    assert pictures.path == "gradient by layer"


class Noted(Tracker):
    """A tracker of one's own."""

    failed = None

    def end(self, *, failed):
        self.failed = failed


def test_one_that_draws_nothing_costs_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("shortback.health.plots.gradient_by_layer", lambda *arguments: 1 / 0)
    log("csv", tmp_path)
    with pytest.raises(ZeroDivisionError):
        log("tensorboard", tmp_path)


def test_one_that_trains_while_another_exception_is_handled_has_not_failed(tmp_path):
    tracker = Noted(tmp_path)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        tracker.start(step=0, total_steps=1)
        tracker.close()
    assert tracker.failed is False


@pytest.mark.parametrize("breaks", [False, True])
def test_an_end_by_an_exception_is_told(tmp_path, breaks):
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(8, 4), torch.arange(8) % 2), batch_size=4)
    tracker = Noted(tmp_path / "noted")
    if breaks:
        tracker.advance = lambda step: 1 / 0
    execution = choose_execution(compile="off", precision="fp32")
    with contextlib.suppress(ZeroDivisionError):
        fit(nn.Linear(4, 2), data, epochs=1, folder=tmp_path, execution=execution, loggers=[tracker])
    assert tracker.failed is breaks


def test_refusals(monkeypatch):
    with pytest.raises(UserError, match="logger='tensorbord': must be one of csv, tensorboard"):
        make_tracker("tensorbord", Path())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb is not installed: pip install 'shortback\[wandb\]'"):
        check_tracker("wandb")


def test_settings_are_flat():
    assert flat(SETTINGS) == {"method": "shortcut", "train.epochs": 2, "train.loggers": ["csv"]}
