"""`shortback recipes new`, as it is typed."""

import os
import pty
import subprocess
import sys

import yaml

from shortback.recipes.load import load_recipe

COMMAND = [sys.executable, "-m", "shortback", "recipes", "new"]


def test_it_asks_for_what_is_not_given(tmp_path):
    """On a terminal, with an answer that is none, and a number that is none."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--out", "mine.yaml"], cwd=tmp_path, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    os.close(inside)
    for answer in ("mnist", "bundled", "plain32", "many", "5"):
        os.write(terminal, f"{answer}\n".encode())
    said = process.communicate(timeout=60)[0].decode()
    os.close(terminal)
    assert process.returncode == 0, said
    assert "'mnist' is none of images, cifar10" in said
    assert "32 layers without skips: what branches help most" in said
    assert "shortback train mine.yaml" in said
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["extend"] == "cifar10-plain32"
    assert load_recipe(str(tmp_path / "mine.yaml")).train.epochs == 5


def test_without_a_terminal_it_takes_options_and_names_what_is_missing(tmp_path):
    def run(*options):
        return subprocess.run(
            [*COMMAND, *options],
            check=False,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = run("--data", "bundled", "--network", "resnet20")
    assert (done.returncode, done.stderr) == (2, "error: --epochs is missing, and there is no terminal to ask in\n")
    assert run("--data", "bundled", "--network", "resnet20", "--epochs", "2").returncode == 0
    assert load_recipe(str(tmp_path / "recipe.yaml")).model.name == "resnet20"
    done = run("--data", "bundled", "--network", "resnet20", "--epochs", "2")
    assert (done.returncode, "recipe.yaml is there already" in done.stderr) == (2, True)
