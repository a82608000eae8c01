import json

import pytest

from shortback.runs.early_exit import evaluate_early_exit
from tests.runs.test_train import run, tiny  # noqa: F401
from tests.test_cli import invoke, refused

pytestmark = pytest.mark.slow


def test_the_command(run, tmp_path):  # noqa: F811
    folder, summary, _ = run
    printed = json.loads(invoke("eval", folder, "--early-exit", "--json").stdout)
    last = printed["points"][-1]
    assert last["accuracy"] == pytest.approx(summary["test_accuracy"])
    assert last["mean_steps"] == 2
    assert len(printed["temperatures"]) == 2
    assert printed == json.loads(json.dumps(evaluate_early_exit(folder)))
    done = invoke("eval", folder, "--early-exit", "--picture", tmp_path / "curve.png")
    assert done.exit_code == 0, done.output
    assert "all steps" in done.stdout
    assert "chosen" in done.stdout
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_wrong_is_said(run):  # noqa: F811
    assert "--picture is of --early-exit" in refused("eval", run[0], "--picture", "curve.png")
