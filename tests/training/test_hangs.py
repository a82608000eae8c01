"""Two processes of which one hangs: in its loader, or in a layer; all others wait for it."""

import os
import subprocess
import sys

import pytest

from shortback.training.hangs import HangWatch, _hanging, _is_hang, _report, _Sign, _silent

WORKER = """
import sys, time
from pathlib import Path
import torch
from torch import nn
import shortback as sb
from shortback.processes import rank
from shortback.training import choose_execution

class Slow(nn.Module):
    steps = 0
    def forward(self, x):
        self.steps += self.training
        if sys.argv[1] == "layer" and rank() == 1 and self.steps == 5:
            stay()
        return x

def stay():
    time.sleep(60)

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, index):
        if sys.argv[1] == "loader" and rank() == 1 and index == 39:
            stay()
        return torch.full((4,), float(index)), index % 2

sb.training.fit(
    nn.Sequential(nn.Linear(4, 4), Slow(), nn.Linear(4, 2)),
    torch.utils.data.DataLoader(Data(), batch_size=4),
    epochs=2,
    folder=Path(sys.argv[2]),
    hang_minutes=0.03,
    execution=choose_execution(compile="off", precision="fp32"),
)
"""


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(("where", "doing"), [("loader", "waiting for batch"), ("layer", "working on batch")])
def test_the_process_that_hangs_is_named(tmp_path, where, doing):
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*command, str(tmp_path / "worker.py"), where, str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    report = done.stderr.partition("the training hangs; ")[2].splitlines()
    assert report[0] == "the processes wait for rank 1:", done.stderr
    assert report[1].startswith("  rank 1 (process ")
    assert doing in report[1]
    assert report[1].endswith("worker.py:19 (stay)")
    assert report[2].startswith("  rank 0 (process ")
    assert "rank 1 stands at\n" in done.stderr


def sign(number, moves, *, waits):
    return _Sign(number, moves, 99.0, "working on batch 3 of training", "a.py:1 (f)", waits, "process 1 on here")


def test_who_is_behind_is_waited_for():
    behind, ahead = sign(0, 6, waits=True), sign(1, 7, waits=False)
    assert _hanging([behind, ahead]) == [behind]
    waiting, busy = sign(0, 7, waits=True), sign(1, 7, waits=False)
    assert _hanging([waiting, busy]) == [busy]
    both = [sign(0, 7, waits=True), sign(1, 7, waits=True)]
    assert _hanging(both) == []
    assert "wait for each other" in _report(both, [])


def test_who_is_silent_is_waited_for_longer_and_then_named():
    early = [_silent(0), sign(1, 5, waits=False)._replace(seconds=1.1)]
    assert not _is_hang(early, limit=1.0)
    moved = [sign(0, 4, waits=True)._replace(seconds=0.1), early[1]]  # what it said last may be old
    assert not _is_hang(moved, limit=1.0)
    assert _is_hang([sign(0, 5, waits=True)._replace(seconds=0.9), early[1]], limit=1.0)
    late = [_silent(0), sign(1, 5, waits=False)._replace(seconds=2.1)]
    assert _is_hang(late, limit=1.0)
    assert _hanging(late) == [late[0]]
    assert _report(late, [late[0]]).splitlines()[:2] == [
        "the training hangs; the processes wait for rank 0:",
        "  rank 0: never reported",
    ]


def test_batches_are_the_same_and_one_process_is_not_watched(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with HangWatch(0.001) as watch:
        assert list(watch.over("abc", "training")) == ["a", "b", "c"]
        assert watch._thread is None
    with HangWatch(None) as watch:
        assert list(watch.over("", "training")) == []
