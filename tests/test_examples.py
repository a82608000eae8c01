"""Every program of examples/ runs as it is started, in an empty folder, and says how it went."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"
ELSEWHERE = {"camera", "plain_pytorch"}  # which need a run: tests/runs/test_sharing.py, and below
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in ELSEWHERE)


def started(name, folder, *arguments):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_runs(name, tmp_path):
    text = (EXAMPLES / f"{name}.py").read_text()
    assert f"python examples/{name}.py" in text.splitlines()[0], "the first line says how it is started"
    for library in re.findall(r"^(?:import|from) (sinabs|norse|lightning|snntorch|spikingjelly|optuna)", text, re.M):
        pytest.importorskip(library)
    said = started(name, tmp_path, *(["cifar10-resnet20", 2] if name == "sweep_places" else []))
    accuracies = [float(found) for found in re.findall(r"(?:accuracy|best of 2:) (?:.*?)([\d.]+)%", said)]
    if name == "own_loop":
        losses = [float(found) for found in re.findall(r"main ([\d.]+)", said)]
        assert losses[-1] < 2.3  # below that of chance
        assert (tmp_path / "model.pt").exists()
    elif name == "with_lightning":
        assert "total" in said
    else:
        assert accuracies, said
    if name == "event_recordings":
        assert accuracies[-1] > 90  # left and right
    if name == "with_timm":
        assert accuracies[-1] > 50  # two epochs on 1,200 images of clothes


def test_fine_tuning_takes_weights_that_are_there(tmp_path):
    timm = pytest.importorskip("timm")
    import torch

    torch.manual_seed(5)
    ann = timm.create_model("resnet10t", num_classes=10, in_chans=1)
    torch.save(ann.state_dict(), tmp_path / "ann.pt")
    said = started("with_timm", tmp_path, tmp_path / "ann.pt")
    assert not (tmp_path / "runs" / "timm-ann").exists()
    assert "fine-tuned" in said


def test_the_camera(tmp_path):
    from shortback.runs.train import train_recipe
    from tests.runs.test_train import tiny

    train_recipe(tiny(), tmp_path / "run")
    lines = started("camera", tmp_path, tmp_path / "run").splitlines()
    frames = [line for line in lines if re.match(r"frame \d+: .* \d+%, [\d.]+ ms", line)]
    assert len(frames) == 20
