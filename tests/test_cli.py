"""The command line as a user has it: what it prints, where, and its exit codes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

from shortback.cli import app
from tests.runs.test_train import TINY

pytestmark = pytest.mark.slow

SETTINGS = [part for setting in TINY for part in ("-s", setting)]


def command(*arguments):
    return [sys.executable, "-m", "shortback", *map(str, arguments)]


def run(*arguments, **environment):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def refused(*arguments):
    """The message of a user's mistake: exit code 2 and no exception that got out."""
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    return done.stderr


def invoke(*arguments):
    """A command in this process, which spares the seconds of importing PyTorch."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_help_is_quick():
    """Half as much again as the library that prints it takes alone, at most: in time of the processor, by ratio."""
    ours, bare = [], []
    for _ in range(5):
        for times, argv in (
            (ours, command("--help")),
            (bare, [sys.executable, "-c", "import typer, typer.rich_utils"]),
        ):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(argv, capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(ours) < 1.5 * min(bare)


def test_help_loads_nothing_heavy():
    code = "import sys, shortback.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "numpy", "lightning", "matplotlib", "yaml"} & set(done.stdout.split())


def test_a_run_from_the_beginning_to_the_evaluation(tmp_path):
    out = tmp_path / "run"
    done = run("train", "quickstart", *SETTINGS, "-s", "train.epochs=1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "evolutionary: resnet20, 2 steps, 8 branches" in done.stdout
    assert "its outputs are bit-equal to those of training" in done.stdout
    summary = json.loads((out / "summary.json").read_text())

    printed = json.loads(run("eval", out, "--json").stdout)
    assert printed["test_accuracy"] == summary["test_accuracy"]
    for_people = invoke("eval", out).stdout
    assert f"test accuracy {summary['test_accuracy']:.2%} on 1000 images" in for_people
    assert "firing rate by layer" in for_people

    assert "a finished run: add --overwrite" in refused("train", "quickstart", *SETTINGS, "--out", out)
    message = refused("train", "quickstart", *SETTINGS, "-s", "seed=1", "--out", out, "--resume")
    assert "seed: 1, 0" in message


def test_a_run_that_was_refused_is_started_by_the_command_that_is_right(tmp_path):
    words = ["train", "quickstart", *SETTINGS, "-s", "train.epochs=1", "-s", "data.train_images=200", "--out", tmp_path]
    assert "a batch of 1000 is more than the 180 images" in refused(*words, "-s", "train.batch_size=1000")
    assert (tmp_path / "recipe.yaml").exists()
    done = invoke(*words, "-s", "data.num_workers=0")
    assert done.exit_code == 0, done.output
    again = invoke(*words, "--resume", "-s", "data.num_workers=1", "-s", "train.log_every=7")
    assert again.exit_code == 0, again.output


def test_a_comparison_prints_one_table(tmp_path):
    settings = [*SETTINGS, "-s", "train.epochs=1", "-s", "compare=[vanilla, evolutionary]"]
    done = run("train", "quickstart", *settings, "--out", tmp_path, COLUMNS="140")
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("same network, seed and budget") :]
    for method in ("vanilla", "evolutionary"):
        accuracy = json.loads((tmp_path / method / "summary.json").read_text())["test_accuracy"]
        (line,) = [line for line in table.splitlines() if method in line]
        assert f"{accuracy:.2%}" in line
        assert "bit-equal" in line
        assert "NOT" not in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_gracefully(tmp_path, number):
    out = tmp_path / "run"
    arguments = ["train", "quickstart", *SETTINGS, "-s", "train.epochs=500", "--out", out]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and '"kind": "step"' in metrics.read_text()):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; a checkpoint is there: add --resume" in errors
    assert "Traceback" not in errors
    content = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert content["state"]["step"] >= 3


def test_recipes(tmp_path):
    listed = run("recipes", "ls").stdout
    assert "cifar10-resnet20" in listed
    assert "ResNet-20 (16-32-64) on CIFAR-10" in listed
    shown = run("recipes", "show", "quickstart", "-s", "train.epochs=9").stdout
    assert "epochs: 9" in shown
    copy = tmp_path / "mine.yaml"
    assert run("recipes", "copy", "quickstart", copy).returncode == 0
    assert "already exists" in refused("recipes", "copy", "quickstart", copy)
    assert run("recipes", "validate", copy).stdout == f"{copy}: fine\n"
    (tmp_path / "own.yaml").write_text("extend: mine.yaml\nseed: 3\n")
    (tmp_path / "there").mkdir()
    assert run("recipes", "copy", tmp_path / "own.yaml", tmp_path / "there").returncode == 0
    assert "seed: 3" in run("recipes", "show", tmp_path / "there" / "own.yaml").stdout


def test_a_method_that_is_said_beside_a_comparison_heeds_its_settings(tmp_path):
    settings = ["-s", "method=shortcut", "-s", "branches.coefficient=0.5"]
    done = invoke("recipes", "validate", "quickstart", *settings)
    assert (done.exit_code, done.stdout) == (0, "quickstart: fine\n")
    assert "add -s compare= to train by one" in refused("train", "quickstart", *settings, "--out", tmp_path / "run")
    # A diagnosis is of one method, whatever is compared.
    compare = ["-s", "compare=[vanilla, shortcut]", "-s", "branches.coefficient=0.5"]
    assert invoke("recipes", "validate", "quickstart", *compare).exit_code == 0
    message = refused("diagnose", "quickstart", *compare)
    assert "branches.coefficient=...: applies only to method=shortcut, and this is evolutionary; choose" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "quikstart"], "the nearest recipes are quickstart"),
        (["train", "quickstart", "-s", "train.epohs=3"], "unknown key; the nearest are epochs"),
        (["train", "quickstart", "-s", "model.num_steps=0"], "greater than or equal to 1, got 0"),
        (["train", "quickstart", "-s", "compare=", "-s", "branches.at=[layr1]"], "the nearest are layer1"),
        (["train", "quickstart", "-s", "branches.at=[layr1]"], "the nearest are layer1"),
        (["train", "quickstart", "--resume", "--overwrite"], "exclude each other"),
        (["train", "quickstart", "-s", "train={[a]: 1}"], "-s train={[a]: 1}, line 1: not valid YAML"),
        (["train", "quickstart", "-s", "seed=2001-99-99"], "not valid YAML, a value is not a valid timestamp"),
        (["train", "quickstart", "-s", "seed=!!int x"], "not valid YAML, a value is not a valid int"),
        (["train", "quickstart", "-s", "method=vanilla"], "add -s compare= to train by one"),
        (["train", "cifar10-resnet20", "-s", "optimizer.momentum=0.5"], "-s optimizer.momentum=...: applies"),
        (
            ["diagnose", "cifar10-resnet20", "-s", "branches.rate=3"],
            "-s branches.rate=...: applies only to branches.schedule=",
        ),
        (["recipes", "validate", "cifar10-resnet20", "-s", "loss.tet_weight=0.5"], "-s loss.tet_weight=...: applies"),
        (["ablate", "quickstart", "--plan", "--methods", "vanilla, shortcuts"], "--methods shortcuts: no such method"),
        (["data", "show", "quickstart", "--out", "samples.xyz"], "--out samples.xyz: the name of a picture ends in"),
        (["train", "cifar10-resnet20", "-s", "data.root=/nowhere"], "/nowhere"),
        (
            ["train", "cifar10-resnet20", "-s", "data.kind=image_folder", "-s", "data.root=/nowhere"],
            "train/",
        ),
        (["eval", "/nowhere"], "holds no run"),
    ],
)
def test_mistakes_are_told_at_once(tmp_path, arguments, message):
    if arguments[0] == "train" and "--resume" not in arguments:
        arguments = [*arguments, "--out", tmp_path / "run"]
    assert message in refused(*arguments)
    assert not list(tmp_path.rglob("metrics.jsonl"))
