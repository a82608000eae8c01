from PIL import Image
from typer.testing import CliRunner

from shortback.cli import app
from shortback.recipes.load import load_recipe
from shortback.runs.show_data import write_samples
from tests.data.events.conftest import event_folder  # noqa: F401


def test_a_sentence_and_a_picture(event_folder, tmp_path):  # noqa: F811
    changes = ["data.kind=event_folder", f"data.root={event_folder}", "data.frames.size=8", "data.train_images=null"]
    recipe = load_recipe("events-quickstart", settings=[*changes, "data.validation_fraction=0.2"])
    said = write_samples(recipe, tmp_path / "new" / "s.png", count=2)
    assert "2 classes; 10 samples to train on, 2 to validate, 4 to test, 4 frames of 2 x 8 x 8" in said
    assert "sensor of height 8, width 8 (as the files or their formats say); drawn in" in said
    with Image.open(tmp_path / "new" / "s.png") as picture:
        assert picture.size[0] > 300


def test_the_command_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["data", "show", "quickstart", "--count", "2"])
    assert result.exit_code == 0, result.output
    with Image.open("samples.png") as picture:
        assert picture.size[1] > picture.size[0] > 100  # two lines of one image: nothing is augmented
