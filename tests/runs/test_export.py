"""`shortback export` as a user has it."""

import json
import shutil

import pytest
import torch

import shortback as sb
from shortback.export.writing import load_program
from shortback.runs.evaluate import load_run
from shortback.runs.export import export_run
from shortback.runs.sharing import publish
from shortback.runs.train import train_recipe
from tests.data.events.conftest import write_npz
from tests.runs.test_events import recipe
from tests.runs.test_train import run, tiny  # noqa: F401
from tests.test_cli import invoke, refused

pytest.importorskip("nir")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("to", ["nir", "onnx", "torch"])
def test_the_file_has_the_accuracy_of_the_run(run, tmp_path, to):  # noqa: F811
    folder, summary, _ = run
    out = tmp_path / f"net.{'pt2' if to == 'torch' else to}"
    done = invoke("export", folder, out, "--to", to, "--test")
    assert done.exit_code == 0, done.output
    assert f"test accuracy of the file {summary['test_accuracy']:.2%} in fp32\n" in done.output
    assert "as it was trained" not in done.output
    about = json.loads((tmp_path / f"{out.name}.json").read_text())
    assert about["test_accuracy"] == pytest.approx(summary["test_accuracy"])
    assert about["test_precision"] == "fp32"
    assert about["classes"] == summary["classes"]
    assert about["preprocessing"]["image_size"] == 28
    assert about["check"]["agreement"] == 1


def test_streaming(run, tmp_path):  # noqa: F811
    exported = export_run(run[0], tmp_path / "net.pt2", to="torch", streaming=True, num_images=8)
    assert exported.check.images == 8
    assert exported.test_accuracy is None


def test_the_precision_of_the_run_is_said(run, tmp_path):  # noqa: F811
    """A file holds float32, and the run may have been tested in bf16."""
    folder, summary = tmp_path / "run", run[1]
    shutil.copytree(run[0], folder)
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("precision: fp32", "precision: bf16"))
    done = invoke("export", folder, tmp_path / "net.nir", "--to", "nir", "--test")
    accuracy = f"{summary['test_accuracy']:.2%}"
    assert f"test accuracy of the file {accuracy} in fp32\n  of the run {accuracy} in bf16, in which" in done.output


@pytest.fixture(scope="module")
def event_run(tmp_path_factory):
    """A finished run of recordings of two classes, in which the network fires."""
    base = tmp_path_factory.mktemp("events")
    for split, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("left", "right")):
            for i in range(count):
                seed = 100 * label + 10 * (split == "test") + i
                write_npz(base / "recordings" / split / name / f"{i}.npz", seed=seed, side=32)
    settings = (
        "model={name: vgg11, width: 0.125, num_steps: 3}",
        "data.frames.size=32",
        "health.every=null",
        "method=vanilla",
    )
    train_recipe(recipe(base / "recordings", *settings), base / "run", say=lambda line: None)
    return base / "run"


def test_a_stream_of_events(event_run, tmp_path):
    out = tmp_path / "net.pt2"
    done = invoke("export", event_run, out, "--to", "torch", "--streaming")
    assert done.exit_code == 0, done.output
    assert "torch.export on 4 images" in done.output
    about = json.loads((tmp_path / "net.pt2.json").read_text())
    assert about["input"] == ["batch", 2, 32, 32]
    model = load_run(event_run)[1].eval()
    program, frames = load_program(out).module(), torch.randint(0, 4, (3, 5, 2, 32, 32)).float()
    state = sb.stream(model).initial_state(frames[0])
    with torch.no_grad():
        for frame in frames:
            y, state = program(frame, state)
        torch.testing.assert_close(y, model(frames), rtol=1e-4, atol=1e-5)


def test_frames_of_events_are_described(event_run, tmp_path):
    export_run(event_run, tmp_path / "net.nir", to="nir", importer="norse")
    publish(event_run, str(tmp_path / "net"))
    about = json.loads((tmp_path / "net.nir.json").read_text())["preprocessing"]
    assert about == json.loads((tmp_path / "net" / "config.json").read_text())["preprocessing"]
    assert about["frames"] == {"num_steps": 3, **load_run(event_run)[0].recipe.data.frames.model_dump()}
    assert about["frames"]["by"] == "count"
    assert about["sensor"].startswith("height 32, width 32")
    assert about["channels"] == ["OFF (darker)", "ON (brighter)"]
    assert about["pixels"] == "numbers of events, at most 255, neither divided nor normalised"
    assert not {"mean", "std"} & set(about)
    card = (tmp_path / "net" / "README.md").read_text()
    assert "Frames of events must be numbers of events, at most 255" in card


def test_what_is_wrong_is_a_line(run, tmp_path):  # noqa: F811
    folder = run[0]
    (tmp_path / "there.nir").write_text("mine")
    assert "is there already" in refused("export", folder, tmp_path / "there.nir", "--to", "nir")
    with pytest.raises(ValueError, match="holds no run"):
        export_run(tmp_path, tmp_path / "net.nir", to="nir")
    with pytest.raises(ValueError, match="test it without --streaming"):
        export_run(folder, tmp_path / "net.pt2", to="torch", streaming=True, test=True)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    with pytest.raises(ValueError, match="a run that is not finished"):
        export_run(unfinished, tmp_path / "net.nir", to="nir")
