from pathlib import Path

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


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("image_folder", {"url": "http://x"}, "url='http://x' is for shards, not for image_folder"),
        ("bundled", {"cache_gb": 3.0}, "cache_gb=3.0 is for shards, not for bundled"),
        ("bundled", {"cache_dir": Path("x")}, "cache_dir=.* is for image_folder, shards and .*, not for bundled"),
        ("shards", {"skip_bad": True}, "skip_bad=True is for image_folder and .*, not for shards"),
        ("shards", {"download": True}, "download=True is for cifar10 and the like, not for shards"),
        ("shards", {"cache_gb": 3.0}, "cache_dir and cache_gb are for copies of shards behind a url"),
    ],
)
def test_no_setting_is_left_unheeded(packed, kind, settings, message):
    with pytest.raises(UserError, match=message):
        load_data(kind, root=packed, **settings)


def test_a_training_on_shards(packed, tmp_path):
    settings = [*TINY, "data.kind=shards", f"data.root={packed}", "data.train_images=null", "data.image_size=16"]
    recipe = load_recipe("quickstart", settings=[*settings, "train.batch_size=8"])
    summary = train_recipe(recipe, tmp_path / "run")
    assert (summary["epochs"], summary["test_images"]) == (2, 6)
