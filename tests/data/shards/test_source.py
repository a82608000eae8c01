import pytest

from shortback.data import load_data
from shortback.data.shards import load_shards
from shortback.errors import UserError
from shortback.recipes.load import load_recipe
from shortback.runs.train import train_recipe

from ...runs.test_train import TINY


def test_where_they_are_must_be_said(tmp_path, folder):
    with pytest.raises(UserError, match="need either root, a folder, or url"):
        load_data("shards")
    with pytest.raises(FileNotFoundError, match="shortback data pack"):
        load_shards(folder)
    with pytest.raises(UserError, match="url='http://x': is for shards"):
        load_data("image_folder", root=folder, url="http://x")


def test_a_training_on_shards(packed, tmp_path):
    settings = [*TINY, "data.kind=shards", f"data.root={packed}", "data.train_images=null", "data.image_size=16"]
    recipe = load_recipe("quickstart", settings=[*settings, "train.batch_size=8"])
    summary = train_recipe(recipe, tmp_path / "run")
    assert summary["epochs"] >= 1
