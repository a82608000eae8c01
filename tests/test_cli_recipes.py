"""`shortback recipes new`, as it is typed."""

import os
import pty
import subprocess
import sys

import yaml
from typer.testing import CliRunner

from shortback.cli import app
from shortback.recipes.load import load_recipe

COMMAND = [sys.executable, "-m", "shortback", "recipes", "new"]


def test_it_asks_for_what_is_not_given(tmp_path):
    """On a terminal, with an answer that is none, and a number that is none."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--out", "mine.yaml"], cwd=tmp_path, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    os.close(inside)
    for answer in ("mnist", "", "bundled", "plain32", "many", "5"):
        os.write(terminal, f"{answer}\n".encode())
    said = process.communicate(timeout=60)[0].decode()
    os.close(terminal)
    assert process.returncode == 0, said
    assert "'mnist' is none of images, cifar10" in said
    assert "an answer is needed, or --data on the command line; Ctrl-C quits > " in said
    assert "'many' is not a whole number; Ctrl-C quits > " in said
    assert "32 layers without skips, where branches help most" in said
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
    assert (done.returncode, done.stderr) == (2, "error: --epochs is missing, and stdin is not a terminal\n")
    assert run("--data", "bundled", "--network", "resnet20", "--epochs", "2").returncode == 0
    assert load_recipe(str(tmp_path / "recipe.yaml")).model.name == "resnet20"
    done = run("--data", "bundled", "--network", "resnet20", "--epochs", "2")
    assert (done.returncode, "recipe.yaml already exists" in done.stderr) == (2, True)


def said(*arguments):
    result = CliRunner().invoke(app, ["recipes", *arguments])
    return result.exit_code, result.output


def test_what_is_missing_without_a_terminal_is_named_with_its_choices(tmp_path):
    code, text = said("new", "--out", str(tmp_path / "mine.yaml"))
    assert (code, "stdin is not a terminal; one of images, cifar10, cifar100, events, bundled" in text) == (2, True)


def test_the_list_has_whole_sentences():
    code, text = said("ls")
    assert code == 0
    assert all(line.endswith(".") for line in text.splitlines())
    assert "section 5) on a network that the paper does not use for these data." in text


def test_settings_are_listed_with_what_they_take():
    code, text = said("settings", "model.neuron.surrogate")
    assert (code, len(text.splitlines())) == (0, 8)
    assert "rectangular, triangular, arctan, sigmoid, fast_sigmoid, tanh_window; default: triangular)" in text
    assert "    Steepness, for arctan" in text
    code, text = said("settings", "modl")
    assert (code, "no setting begins with modl; the nearest are model" in text) == (2, True)
