"""`shortback export` as a user has it."""

import json

import pytest

from shortback.runs.export import export_run
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
    assert f"test accuracy of the file {summary['test_accuracy']:.2%}" in done.output
    about = json.loads((tmp_path / f"{out.name}.json").read_text())
    assert about["test_accuracy"] == pytest.approx(summary["test_accuracy"])
    assert about["classes"] == summary["classes"]
    assert about["preprocessing"]["image_size"] == 28
    assert about["check"]["agreement"] == 1


def test_streaming(run, tmp_path):  # noqa: F811
    exported = export_run(run[0], tmp_path / "net.pt2", to="torch", streaming=True, num_images=8)
    assert exported.check.images == 8
    assert exported.test_accuracy is None


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
