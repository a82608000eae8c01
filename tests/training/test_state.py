"""What a run remembers: counted and timed right, and read on another machine and from an earlier version."""

import os
import signal

import pytest
import torch

from shortback.training import Interrupted, engine
from shortback.training.state import Sums, TrainState, random_states, set_random_state


def test_the_coefficient_of_an_epoch_is_that_of_its_last_step(make_trainer, rows, tmp_path):
    """Killed between the last step of the first epoch and its row too; no schedule is asked for progress 1."""
    asked = []

    def schedule(progress):
        asked.append(progress)
        return [1.0, 0.5, 0.25][int(progress * 3)]

    log, cut, rest = rows(), rows(lambda step: step == 4 and os.kill(os.getpid(), signal.SIGTERM)), rows()
    make_trainer(folder=tmp_path / "whole", schedule=schedule, loggers=[log]).fit()
    with pytest.raises(Interrupted):
        make_trainer(folder=tmp_path / "cut", schedule=schedule, loggers=[cut]).fit()
    make_trainer(folder=tmp_path / "cut", schedule=schedule, loggers=[rest]).fit(resume=True)
    for each in (log.rows, cut.rows + rest.rows):
        assert [row["coefficient"] for row in each if row["kind"] == "epoch"] == [1.0, 0.5, 0.25]
    assert max(asked) == 11 / 12


def test_a_checkpoint_takes_time_that_is_of_no_step(make_trainer, rows, monkeypatch):
    """Three epochs of 4 steps and a checkpoint each, by a clock that moves in checkpoints alone."""
    clock, log = [0.0], rows()
    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock[0])
    trainer = make_trainer(loggers=[log])

    def step(*arguments, **settings):
        clock[0] += 1.0
        return work(*arguments, **settings)

    def save(content):
        clock[0] += 100.0

    work, trainer._forward_backward = trainer._forward_backward, step
    monkeypatch.setattr(trainer.checkpoints, "save", save)
    result = trainer.fit()
    assert result.train_seconds == 12 + 300
    assert result.images_per_second == 16.0
    assert {row["images_per_second"] for row in log.rows} == {16.0}
    assert [row["seconds"] for row in log.rows if row["kind"] == "epoch"] == [4.0, 108.0, 212.0]


def test_checkpoints_of_earlier_versions_are_read():
    assert Sums.from_dict({"values": torch.tensor([4.0, 3.0, 2.0, 8.0]), "seconds": 1.0}).values.tolist() == [
        *(4.0, 3.0, 2.0, 2.0),
        *(8.0, 8.0, 8.0),
    ]
    five = Sums.from_dict({"values": torch.tensor([4.0, 3.0, 2.0, 1.0, 8.0]), "seconds": 1.0})
    assert five.values.tolist() == [4.0, 3.0, 2.0, 1.0, 8.0, 8.0, 8.0]
    content = TrainState(step=3).to_dict()
    del content["coefficient"]
    assert TrainState.from_dict(content).step == 3


class Gpu:
    """Fabric on a GPU of a machine with several."""

    def __init__(self, index, *, rank=0, world_size=1):
        self.device, self.global_rank, self.world_size = torch.device("cuda", index), rank, world_size


@pytest.fixture
def gpus(monkeypatch):
    """The states of two GPUs, of which no other is there."""
    states = [torch.tensor([index], dtype=torch.uint8) for index in range(2)]
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.__setitem__(device.index, state))
    return states


def test_each_process_remembers_its_own_gpu(gpus):
    (state,) = random_states(Gpu(1))
    assert state["cuda"].tolist() == [1]
    gpus[:] = [torch.tensor([7]), torch.tensor([8])]
    set_random_state([state], Gpu(0))  # which goes on where there is one GPU alone
    assert [each.item() for each in gpus] == [1, 8]


def test_the_gpus_of_a_larger_machine_are_read(gpus):
    """A checkpoint of an earlier version has the states of all."""
    old = {"cpu": torch.get_rng_state(), "cuda": [torch.tensor([index + 10]) for index in range(8)]}
    set_random_state(old, Gpu(1))
    assert [each.item() for each in gpus] == [0, 11]
    set_random_state([old], Gpu(0))
    assert [each.item() for each in gpus] == [10, 11]
    set_random_state({**old, "cuda": []}, Gpu(0))
    set_random_state({**old, "cuda": old["cuda"][:1]}, Gpu(1))  # of a smaller one
    assert [each.item() for each in gpus] == [10, 11]
