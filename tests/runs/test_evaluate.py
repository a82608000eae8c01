"""A run is tested on data that may have been moved, and on none whose labels mean something else."""

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from shortback.cli import main
from shortback.data.events.frames import Frames, to_frames
from shortback.data.events.recording import Events
from shortback.errors import UserError
from shortback.recipes.data_settings import FramesConfig
from shortback.recipes.load import changed, load_recipe
from shortback.runs.diagnose import check_run_gradients
from shortback.runs.evaluate import evaluate_run, preprocessing
from shortback.runs.folder import RunFolder
from shortback.runs.sharing import load
from shortback.runs.train import train_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, and the result of its test, on images of two classes that are no longer where they were."""
    base = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for number, name in enumerate(("cat", "dog")):
            folder = base / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 128, (8, 8, 3)) + 120 * number
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    settings = [
        f"data={{kind: image_folder, root: {base / 'images'}, image_size: 8, num_workers: 0}}",
        "model={name: resnet20, width: 0.25, num_steps: 1}",
        "train={epochs: 2, batch_size: 4, compile: off, precision: fp32}",
        "method=vanilla",
        "compare=null",
    ]
    summary = train_recipe(load_recipe("quickstart", settings=settings), base / "run", say=lambda line: None)
    result = evaluate_run(base / "run")
    (base / "images").rename(base / "moved")
    return base, summary, result


def test_moved_data_are_named_by_a_setting(trained):
    base, summary, before = trained
    assert summary["classes"] == ["cat", "dog"]
    assert evaluate_run(base / "run", settings=[f"data.root={base / 'moved'}"]) == before
    with pytest.raises(ValueError, match=r"only data\.root, data\.url, .* can change"):
        evaluate_run(base / "run", settings=["model.num_steps=2"])


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run to change, and the setting by which its data are found."""
    shutil.copytree(trained[0] / "run", tmp_path / "run")
    return tmp_path / "run", f"data.root={trained[0] / 'moved'}"


def test_a_run_of_a_gpu_is_tested_and_diagnosed_where_there_is_none(trained, copy, monkeypatch, caplog):
    path, _ = copy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = path / "recipe.yaml"
    text = recipe.read_text().replace("device: cpu", "device: cuda")
    recipe.write_text(text.replace(str(trained[0] / "images"), str(trained[0] / "moved")))
    assert evaluate_run(path) == trained[2]
    assert [record.message for record in caplog.records] == [
        "trained with train.device=cuda, and PyTorch sees no GPU here: this runs on the CPU"
    ]
    assert "after 10 steps" in check_run_gradients(path).title
    caplog.clear()
    assert evaluate_run(path, settings=["train.device=cpu"]) == trained[2]
    assert not caplog.records
    with pytest.raises(ValueError, match="PyTorch sees no GPU"):
        evaluate_run(path, settings=["train.device=cuda"])


def test_what_was_trained_in_bf16_is_tested_in_it_and_in_float32(trained, copy, capsys, monkeypatch):
    path, root = copy
    recipe = path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("precision: fp32", "precision: bf16"))
    as_trained = evaluate_run(path, settings=[root])
    assert as_trained["precision"] == "bf16"
    assert as_trained["test_loss"] != trained[2]["test_loss"]
    assert evaluate_run(path, settings=[root, "train.precision=fp32"]) == trained[2]
    assert trained[2]["precision"] == "fp32"
    command("eval", str(path), "-s", root, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert f"test accuracy {as_trained['test_accuracy']:.2%} on 12 images in bf16\n" in said
    assert "-s train.precision=fp32 tests the network that is loaded and exported" in said
    command("eval", str(path), "-s", root, "-s", "train.precision=fp32", monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert "on 12 images in fp32\naccuracy by number of steps" in said


@pytest.mark.parametrize("by", ["count", "duration"])
@pytest.mark.parametrize("resize", ["sum", "nearest"])
@pytest.mark.parametrize(("values", "keep_aspect"), [("count", False), ("binary", True)])
def test_frames_of_events_are_made_as_the_words_say(by, resize, values, keep_aspect):
    size, num_steps, h, w, n = 5, 3, 17, 11, 200
    settings = FramesConfig(size=size, by=by, resize=resize, values=values, keep_aspect=keep_aspect)
    run = SimpleNamespace(
        splits=SimpleNamespace(
            source=SimpleNamespace(image_size=size, num_steps=num_steps, sensor="height 17, width 11")
        ),
        recipe=SimpleNamespace(data=SimpleNamespace(frames=settings)),
    )
    about = json.loads(json.dumps(preprocessing(run)))
    rng = np.random.default_rng(0)
    t, on = np.sort(rng.integers(0, 1000, n)), rng.random(n) < 0.5
    x, y = rng.integers(0, w, n), rng.integers(0, h, n)
    frames, _ = to_frames(Events(t, x, y, on, h, w), Frames(**about["frames"]))
    which = about["events_of_a_frame"].partition("is in frame ")[2].partition(", of")[0]
    words = about["pixels_of_a_frame"]
    assert (
        "y * size // whole + margin" if resize == "sum" else "row k + margin of the frame is row k * whole"
    ) in words
    assert ("margin 0 along it and (size - (h - 1) * size // whole - 1) // 2" if keep_aspect else "whole is h") in words

    def line(position, length):
        """Of the frame, None if it has none; by the words."""
        whole = max(h, w) if keep_aspect else length
        margin = 0 if length == whole else (size - (length - 1) * size // whole - 1) // 2
        if resize == "sum":
            return position * size // whole + margin
        return next((k + margin for k in range(size) if k * whole // size == position), None)

    expected = np.zeros((num_steps, 2, size, size), int)
    for i in range(n):
        frame = eval(which, {"i": i, "n": n, "t": t.tolist(), "num_steps": num_steps})
        row, column = line(y[i], h), line(x[i], w)
        assert about["channels"][int(on[i])].startswith("ON" if on[i] else "OFF")
        if row is not None and column is not None:
            expected[frame, int(on[i]), row, column] += 1
    assert expected.any()
    assert (frames == (expected if values == "count" else expected > 0)).all()
    assert about["pixels"].startswith("numbers of events" if values == "count" else "1 where there was an event")


@pytest.mark.parametrize("name", ["recipe.yaml", "summary.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"{[", b"[1]", b"\xff\xfe"])
def test_a_damaged_file_of_a_run_is_named(copy, name, content):
    path, root = copy
    (path / name).write_bytes(content)
    for use in (lambda: evaluate_run(path, settings=[root]), lambda: load(path)):
        with pytest.raises(UserError, match=f"run/{name}") as refusal:
            use()
        assert len(str(refusal.value).splitlines()) == 1
    if name == "recipe.yaml":
        with pytest.raises(UserError, match=r"run/recipe\.yaml"):
            check_run_gradients(path)


def test_half_a_file_of_weights_is_named_and_written_again(trained, copy):
    path, root = copy
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    for use in (lambda: evaluate_run(path, settings=[root]), lambda: load(path)):
        with pytest.raises(UserError, match=r"is damaged .*: delete it and summary.json"):
            use()
    weights.unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load(path)
    (path / "summary.json").unlink()
    recipe = changed(RunFolder(path).read_recipe(), [root], name="it")
    train_recipe(recipe, path, resume=True, say=lambda line: None)
    assert weights.read_bytes() == whole


def test_renamed_classes_are_refused(trained):
    base, _, _ = trained
    renamed = base / "renamed"
    shutil.copytree(base / "moved", renamed)
    for split in ("train", "test"):
        (renamed / split / "cat").rename(renamed / split / "zebra")
    with pytest.raises(ValueError, match="other classes: 0 was 'cat' and is 'dog', 1 was 'dog' and is 'zebra'"):
        evaluate_run(base / "run", settings=[f"data.root={renamed}"])


def test_a_comparison_is_tested_and_reported_as_a_whole(trained, capsys, monkeypatch):
    base, _, result = trained
    for name in ("one", "two"):
        shutil.copytree(base / "run", base / "both" / name)
    (base / "both" / "notes").mkdir()
    command("eval", str(base / "both"), "--json", "-s", f"data.root={base / 'moved'}", monkeypatch=monkeypatch)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps({"one": result, "two": result}))
    command("report", str(base / "both"), monkeypatch=monkeypatch)
    assert "one" in capsys.readouterr().out
    assert (base / "both" / "report.html").exists()
    with pytest.raises(SystemExit):
        command("eval", str(base / "both" / "notes"), monkeypatch=monkeypatch)
    assert "notes holds no run" in capsys.readouterr().err


def command(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["shortback", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    if stop.value.code:
        raise stop.value
