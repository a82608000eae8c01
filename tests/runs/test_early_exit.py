import json
import shutil

import pytest
from PIL import Image
from safetensors.torch import load_file

from shortback.runs.early_exit import evaluate_early_exit
from shortback.runs.train import train_recipe
from tests.runs.test_train import run, tiny  # noqa: F401
from tests.test_cli import invoke, refused

pytestmark = pytest.mark.slow


def test_the_command(run, tmp_path):  # noqa: F811
    folder, summary, _ = run
    printed = json.loads(invoke("eval", folder, "--early-exit", "--json").stdout)
    assert set(printed) == {"time"}
    last = printed["time"]["points"][-1]
    assert last["accuracy"] == printed["time"]["accuracy_of_exits"][-1] == pytest.approx(summary["test_accuracy"])
    assert last["mean"] == 2
    assert printed["time"]["precision"] == "fp32"
    assert len(printed["time"]["temperatures"]) == 2
    assert printed == json.loads(json.dumps(evaluate_early_exit(folder)))
    done = invoke("eval", folder, "--early-exit", "--picture", tmp_path / "curve.png")
    assert done.exit_code == 0, done.output
    assert "in time, computed in fp32" in done.stdout
    assert "all steps" in done.stdout
    assert "chosen" in done.stdout
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.format == "PNG"
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_in_depth_by_the_branches_that_were_kept(tmp_path):
    folder = tmp_path / "run"
    summary = train_recipe(tiny("branches.keep=true", "model.num_steps=1"), folder, say=lambda line: None)
    assert not any("heads" in name for name in load_file(folder / "model.safetensors"))
    printed = json.loads(invoke("eval", folder, "--early-exit", "--json").stdout)
    assert set(printed) == {"depth"}  # of one step nothing leaves in time
    depth = printed["depth"]
    assert len(depth["temperatures"]) == len(depth["places"]) + 1
    assert depth["points"][-1]["accuracy"] == pytest.approx(summary["test_accuracy"])
    assert depth["points"][-1]["mean"] == depth["exits"][-1]
    assert depth["points"][0]["acs"] <= depth["points"][-1]["acs"]
    done = invoke("eval", folder, "--early-exit", "--picture", tmp_path / "curve.png")
    assert "all layers" in done.stdout
    assert (tmp_path / "curve.png").exists()


def test_what_is_wrong_is_said(tmp_path):
    folder = tmp_path / "run"
    train_recipe(tiny("model.num_steps=1"), folder, say=lambda line: None)
    assert "train with branches.keep=true" in refused("eval", folder, "--early-exit")


@pytest.mark.parametrize("words", [[], ["--early-exit"]])
def test_a_picture_of_no_format_is_refused_before_the_test(tmp_path, words):
    message = refused("eval", tmp_path, *words, "--picture", tmp_path / "curve.xyz")  # where there is no run either
    assert "the name of a picture ends in .png, .jpg" in message


def test_operations_are_drawn(run, tmp_path):  # noqa: F811
    done = invoke("eval", run[0], "--picture", tmp_path / "operations.png")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "operations.png").read_bytes().startswith(b"\x89PNG")
    shutil.copytree(run[0], tmp_path / "both" / "one")
    shutil.copytree(run[0], tmp_path / "both" / "two")
    message = refused("eval", tmp_path / "both", "--picture", tmp_path / "other.png")
    assert "--picture draws one run" in message
