"""A training that is told to stop goes on later as if it had not been."""

import os
import signal

import pytest
import torch
from lightning_fabric import Fabric

from shortback.training import Interrupted, engine
from shortback.training.checkpoint import read_checkpoint
from shortback.training.signals import agreed
from tests.training.test_engine import assert_equal, weights


@pytest.mark.parametrize("stop_at", [1, 3, 4, 5, 11])
@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "clip_norm": 0.5}], ids=["plain", "ema-clip"])
def test_stopped_by_a_signal_and_resumed_it_ends_the_same(make_trainer, rows, tmp_path, stop_at, settings):
    whole_log, log = rows(), rows(lambda step: step == stop_at and os.kill(os.getpid(), signal.SIGTERM))
    whole = make_trainer(folder=tmp_path / "whole", loggers=[whole_log], **settings)
    whole.fit()
    with pytest.raises(Interrupted, match="SIGTERM"):
        make_trainer(folder=tmp_path / "cut", loggers=[log], **settings).fit()
    rest = rows()
    resumed = make_trainer(folder=tmp_path / "cut", loggers=[rest], **settings)
    resumed.fit(resume=True)
    assert rest.started == (stop_at, 12)
    assert_equal(weights(whole), weights(resumed))
    ends = [read_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "cut")]
    assert_equal(ends[0]["net"], ends[1]["net"])
    same = [
        [{k: v for k, v in row.items() if k not in ("images_per_second", "seconds")} for row in part]
        for part in (whole_log.rows, log.rows + rest.rows)
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize("epoch", [1, 3])
def test_stopped_in_a_validation_it_ends_there_and_can_go_on(make_trainer, tmp_path, monkeypatch, epoch):
    """After the last epoch too, where nothing is left but to load the best weights."""
    whole = make_trainer(folder=tmp_path / "whole")
    whole.fit()
    cut = make_trainer(folder=tmp_path / "cut")
    validate = engine.evaluate

    def signalled(*arguments, **settings):
        if cut.state.epoch + 1 == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments, **settings)

    monkeypatch.setattr(engine, "evaluate", signalled)
    with pytest.raises(Interrupted, match="SIGTERM"):
        cut.fit()
    monkeypatch.setattr(engine, "evaluate", validate)
    assert read_checkpoint(tmp_path / "cut" / "last.pt")["state"]["epoch"] == epoch
    resumed = make_trainer(folder=tmp_path / "cut")
    assert resumed.fit(resume=True).steps == 12
    assert_equal(weights(whole), weights(resumed))


@pytest.mark.parametrize(("settings", "answer"), [({"step": 9}, 0), ({"step": 10}, 15), ({}, 15)])
def test_gpus_are_asked_every_ten_steps_and_where_there_is_no_step(settings, answer):
    class Several:
        world_size, device = 2, torch.device("cuda")

        def all_reduce(self, value, reduce_op):
            return value

    assert agreed(15, Several(), **settings) == answer
    assert agreed(15, Fabric(accelerator="cpu", devices=1), **settings) == 15
