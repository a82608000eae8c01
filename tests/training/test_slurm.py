"""The job file of examples, with stand-ins for `srun` and `scontrol`: two tasks whose time is over in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortback.recipes.load import load_recipe
from shortback.runs.train import train_recipe
from tests.test_cli import SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.processes]

JOB = Path(__file__).parents[2] / "examples" / "slurm.sbatch"
SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit=0
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 "$@" &
    echo $! >> "$STATE/tasks"
done
worst=0
for task in $(jobs -p); do
    wait "$task"
    code=$?
    [ "$code" -gt "$worst" ] && worst=$code
done
exit "$worst"
"""
SCONTROL = """#!/bin/bash
case "$1" in
    show) echo 127.0.0.1 ;;
    *) echo "$@" >> "$STATE/asked" ;;
esac
"""


@pytest.fixture
def job(tmp_path):
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "STATE": str(tmp_path),
        "SLURM_JOB_ID": str(7000 + os.getpid() % 1000),
        "SLURM_JOB_NODELIST": "here",
        "RECIPE": "quickstart",
        "OUT": str(tmp_path / "run"),
        "OMP_NUM_THREADS": "1",
    }

    def start(*settings):
        (tmp_path / "tasks").unlink(missing_ok=True)
        return subprocess.Popen(["bash", JOB, *SETTINGS, *settings], env=environment, stderr=subprocess.PIPE, text=True)

    return tmp_path, start, environment


@pytest.mark.parametrize(("number", "is_queued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_job_whose_time_is_over_goes_on_in_the_next(job, number, is_queued):
    folder, start, environment = job
    epochs = (
        "-s",
        "train.epochs=3",
        "-s",
        "train.batch_size=4",
        "-s",
        "data.train_images=80",
    )  # long enough to be stopped in, and not longer
    running = start(*epochs)
    metrics, deadline = folder / "run" / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        if metrics.exists() and '"kind": "step"' in metrics.read_text():
            break
        time.sleep(0.05)
    assert running.poll() is None, running.stderr.read()
    os.kill(int((folder / "tasks").read_text().split()[1]), number)  # the second alone: both end by it
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 128 + number, errors
    assert f"stopped by {number.name}; a checkpoint is there" in errors
    asked = (folder / "asked").read_text() if (folder / "asked").exists() else ""
    assert asked == (f"requeue {environment['SLURM_JOB_ID']}\n" if is_queued else "")
    if is_queued:
        again = start(*epochs)
        _, errors = again.communicate(timeout=240)
        assert again.returncode == 0, errors
        summary = json.loads((folder / "run" / "summary.json").read_text())
        assert summary["epochs"] == 3
    else:  # another number of processes goes on from there as well
        settings = [*(part for part in (*SETTINGS, *epochs) if part != "-s")]
        summary = train_recipe(load_recipe("quickstart", settings=settings), folder / "run", resume=True)
        assert summary["epochs"] == 3
    steps = [row["step"] for row in map(json.loads, metrics.read_text().splitlines()) if row["kind"] == "step"]
    assert steps == sorted(set(steps))
