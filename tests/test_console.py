"""What the command line says is short, and an empty path is no path."""

import os
import subprocess
import sys

import pytest
import typer

from shortback import __version__
from shortback.console import fail, user_errors
from shortback.errors import UserError


def test_long_words_are_cut_in_their_middle(capsys):
    with pytest.raises(typer.Exit):
        fail(f"error: {'x' * 5000} is too long", code=2, cause=ValueError())
    message = capsys.readouterr().err
    assert len(message) < 200
    assert message.endswith("xxx is too long\n")


def test_an_error_of_the_user_ends_with_2(capsys):
    with pytest.raises(typer.Exit) as stop, user_errors():
        raise UserError("mine")
    assert stop.value.exit_code == 2
    assert capsys.readouterr().err == "error: mine\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--version"], 0, f"shortback {__version__}"),
        (["--show-completion", "bash"], 0, "shortback_completion"),
        (["train", "quickstart", "--out", ""], 2, "is empty; name a folder"),
        (["train", "mine.yaml", "train.batch_size=16"], 2, "write -s train.batch_size=16"),
        (["export", "run", "file", "--to", "nirr"], 2, "'nirr' is none of nir, onnx, torch; the nearest is"),
        (["recipes", "show", "quickstart", "more"], 2, "unexpected extra argument"),
        (["diagnose", "quickstart", "--html", " "], 2, "is empty; name a folder"),
        (["ablate", "quickstart", "--jobs", "0"], 2, "'--jobs'"),
        (["diagnose", "quickstart", "--html", "/dev/null/page.html"], 2, "--html /dev/null: cannot be written to"),
        (["train", "quickstart", "--out", "/dev/null/run"], 2, "--out /dev/null/run/vanilla: cannot be written to"),
    ],
    ids=range(10),
)
def test_the_command(arguments, code, message):
    # What shell the tests were started from (typer asks the parent process) is nothing to them.
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "shortback", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code
    assert message in done.stdout + done.stderr
