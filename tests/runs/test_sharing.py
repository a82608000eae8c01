"""A network that was published is read back the same, from a folder and from a hub that is not there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import shortback as sb
from shortback.recipes.build import build_model
from shortback.recipes.load import parse_recipe
from shortback.runs.evaluate import load_run
from shortback.runs.folder import RunFolder
from shortback.runs.sharing import accuracy_interval, publish
from tests.export.networks import fires, images
from tests.runs.test_train import run, tiny  # noqa: F401
from tests.test_cli import invoke, refused

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("published") / "net"
    done = invoke("publish", run[0], "--to", folder, "--licence", "mit")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{folder}\n"
    return folder


def test_it_is_read_back(run, published):  # noqa: F811
    x = torch.randn(3, 1, 28, 28)
    _, trained = load_run(run[0])
    for place in (published, str(published), run[0]):
        model = sb.load(place)
        assert not model.training
        with torch.no_grad():
            assert torch.equal(model(x), trained.eval()(x))


def test_what_is_in_it(run, published):  # noqa: F811
    assert {path.name for path in published.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = json.loads((published / "config.json").read_text())
    assert config["classes"] == run[1]["classes"]
    assert (config["num_classes"], config["in_channels"]) == (10, 1)
    assert config["preprocessing"]["image_size"] == 28
    card = (published / "README.md").read_text()
    accuracy = run[1]["test_accuracy"]
    low, high = accuracy_interval(accuracy, 1000)
    assert card.startswith("---\nlibrary_name: shortback\n")
    assert "license: mit\n" in card
    assert f"test accuracy {accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})" in card
    assert "ACs an image; arithmetic only, no data movement" in card
    assert "method: evolutionary" in card
    assert "root: null" in card  # no path of this machine
    assert str(published.parent) not in card


def test_the_card_says_how_many_images_were_trained_on(run, published, tmp_path):  # noqa: F811
    """Those of `train_images` without the tenth that is set aside; nothing of a run that did not store their number."""
    recipe, number = RunFolder(run[0]).read_recipe(), run[1]["train_images"]
    assert number == recipe.data.train_images * 9 // 10
    assert f", seed 0, on {number} images: the recipe is below" in (published / "README.md").read_text()
    old = tmp_path / "run"
    shutil.copytree(run[0], old)
    summary = {key: value for key, value in run[1].items() if key != "train_images"}
    (old / "summary.json").write_text(json.dumps(summary))
    publish(old, str(tmp_path / "net"))
    assert ", seed 0: the recipe is below" in (tmp_path / "net" / "README.md").read_text()


def test_the_card_is_of_float32(run, published, tmp_path):  # noqa: F811
    """The accuracy in bf16, of which nothing is left in the weights, stands beside it."""
    trained, accuracy = tmp_path / "run", run[1]["test_accuracy"]
    shutil.copytree(run[0], trained)
    recipe = trained / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("precision: fp32", "precision: bf16"))
    summary = json.loads((trained / "summary.json").read_text())
    (trained / "summary.json").write_text(json.dumps({**summary, "test_accuracy": 0.0625}))
    publish(trained, str(tmp_path / "net"))
    card = (tmp_path / "net" / "README.md").read_text()
    assert f"- test accuracy {accuracy:.2%} (" in card
    assert " on 1000 images in fp32; T=1 " in card
    assert f"T=2 {accuracy:.2%}; 6.25% in bf16, as it was trained\n" in card
    assert "as it was trained" not in (published / "README.md").read_text()


def test_the_interval_is_wilsons():
    """Of 10 of 20 and of none of 10, as tables have it."""
    assert accuracy_interval(0.5, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert accuracy_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_the_hub(run, tmp_path, monkeypatch):  # noqa: F811
    hub = pytest.importorskip("huggingface_hub")
    there = {}

    def upload(*, repo_id, folder_path):
        shutil.copytree(folder_path, tmp_path / repo_id)
        there[repo_id] = tmp_path / repo_id

    def download(name, **settings):
        if name not in there:
            raise hub.errors.LocalEntryNotFoundError("not there")
        return str(there[name])

    monkeypatch.setattr(hub, "create_repo", lambda name, exist_ok: None)
    monkeypatch.setattr(hub, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert publish(run[0], "hf:me/net") == "hf:me/net"
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(sb.load("hf:me/net")(x), sb.load(run[0])(x))
    with pytest.raises(ValueError, match="hf:me/other: the hub cannot be reached, and the model is not in the cache"):
        sb.load("hf:me/other")


def test_a_name_that_is_none():
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ValueError, match="hf:a/b/c/d: Repo id must be"):
        sb.load("hf:a/b/c/d")


def test_what_is_wrong_is_said(run, published, tmp_path):  # noqa: F811
    assert "is there already and not empty" in refused("publish", run[0], "--to", published)
    assert "holds no run" in refused("publish", tmp_path, "--to", tmp_path / "net")
    with pytest.raises(ValueError, match="holds no model: there is neither"):
        sb.load(tmp_path)

    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    weights = load_file(copy / "model.safetensors")
    weights["network.fc.weight"] = torch.zeros(3, 4)
    del weights["network.fc.bias"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ValueError, match=r"network\.fc\.bias(.|\n)*network\.fc\.weight \[3, 4\]"):
        sb.load(copy)
    (copy / "config.json").write_text('{"model": {"name": "resnet21"}, "num_classes": 10, "in_channels": 1}')
    with pytest.raises(ValueError, match=r"model\.name"):
        sb.load(copy)
    (copy / "config.json").write_text('{"model": {}}')
    with pytest.raises(ValueError, match="there is no num_classes, in_channels in it"):
        sb.load(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        sb.load(copy)
    (copy / "model.safetensors").unlink()
    shutil.copy(published / "config.json", copy)
    with pytest.raises(ValueError, match=r"holds no model\.safetensors"):
        sb.load(copy)


def test_a_resnet18_runs_in_plain_pytorch(tmp_path):
    """The example, in a process that has no shortback, beside the network itself."""
    model = {"name": "resnet18", "num_steps": 3, "width": 0.25, "neuron": {"decay": 0.5}}
    recipe = parse_recipe({"model": model}, name="resnet18")
    trained = fires(build_model(recipe.model, num_classes=10, in_channels=3))
    config = {"model": recipe.model.model_dump(mode="json", exclude_none=True), "num_classes": 10, "in_channels": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    x = images(4)
    torch.save(x, tmp_path / "x.pt")
    program = (
        "import sys, torch; sys.modules['shortback'] = None; sys.path.insert(0, 'examples');"
        "from pathlib import Path; from plain_pytorch import ResNet18;"
        "place = Path(sys.argv[1]); torch.save(ResNet18(place)(torch.load(place / 'x.pt')), place / 'y.pt')"
    )
    root = Path(__file__).parent.parent.parent
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=root, check=True, timeout=120)
    y = torch.load(tmp_path / "y.pt")
    with torch.no_grad():
        torch.testing.assert_close(y, sb.load(tmp_path)(x), rtol=1e-4, atol=1e-4)
    assert y.std() > 0.01
