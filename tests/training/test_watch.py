import json
import math

import pytest

from shortback.schedules import Adaptive, Linear
from shortback.training import JsonLines, TensorBoard, Terminal
from tests.training.test_engine import assert_equal, weights


def test_it_looks_when_it_should_and_changes_nothing(make_trainer, rows, tmp_path):
    watched_log, log = rows(), rows()
    watched = make_trainer(folder=tmp_path / "a", loggers=[watched_log], watch_every=5, watch_samples=4)
    watched.fit()
    plain = make_trainer(folder=tmp_path / "b", loggers=[log], watch_every=None)
    plain.fit()
    assert_equal(weights(watched), weights(plain))
    seen = [row for row in watched_log.rows if row["kind"] == "health"]
    assert [row["step"] for row in seen] == [1, 6, 11]
    assert not any(row["kind"] == "health" for row in log.rows)
    for row in seen:
        json.dumps(row, allow_nan=False)
        assert row["num_layers"] == len(row["layers"]["relative"])
        assert set(row["neurons"]) == {"firing_rate", "dead", "in_window"}


def test_the_adaptive_coefficient_follows_the_share(make_trainer, rows):
    log = rows()
    trainer = make_trainer(schedule=Adaptive(start=0.6), loggers=[log], watch_every=1, epochs=2)
    trainer.fit()
    epochs = [row for row in log.rows if row["kind"] == "epoch"]
    assert epochs[0]["branch_share"] == pytest.approx(0.6, abs=0.02)
    assert epochs[1]["branch_share"] == pytest.approx(0.3, abs=0.02)
    assert epochs[1]["coefficient"] == [row for row in log.rows if row["kind"] == "step"][-1]["coefficient"] > 0.0


def test_an_adaptive_run_resumes_with_its_ratio(make_trainer, tmp_path):
    trainer = make_trainer(schedule=Adaptive(start=0.6), watch_every=None)
    trainer.fit()
    ratio = trainer.state.main_over_branches
    assert 0 < ratio < math.inf
    assert ratio != 1.0
    again = make_trainer(schedule=Adaptive(start=0.6), watch_every=None)
    again._restore()
    assert again.state.main_over_branches == ratio


def test_loggers_take_what_was_seen(make_trainer, tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [JsonLines(tmp_path / "rows.jsonl"), TensorBoard(tmp_path / "tb"), Terminal("it")]
    make_trainer(schedule=Linear(), loggers=loggers, watch_every=4).fit()
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert {"health/relative", "health/branch_share", "health/firing_rate"} <= set(events.Tags()["histograms"])
    assert "health/effective_depth" in events.Tags()["scalars"]
    printed = [line for line in capsys.readouterr().out.splitlines() if "gradients before step" in line]
    assert printed[0].startswith("it  gradients before step 1: ")
