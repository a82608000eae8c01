"""A run is not continued on other data."""

import numpy as np
import pytest
from PIL import Image

from shortback.recipes.load import load_recipe
from shortback.runs.folder import RunFolder
from shortback.runs.train import train_recipe
from shortback.training import CheckpointError


def images(root, classes):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in classes:
            (root / split / label).mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    return root


def recipe(root):
    settings = [
        "compare=",
        "method=vanilla",
        "model={name: resnet20, width: 0.1, num_steps: 1}",
        f"data={{kind: image_folder, root: {root}, image_size: 8, num_workers: 0}}",
        "train={epochs: 2, batch_size: 4, precision: fp32, compile: off}",
        "health.every=null",
    ]
    return load_recipe("quickstart", settings=settings)


def test_a_run_is_not_continued_on_data_with_other_classes(tmp_path):
    pets, cars = images(tmp_path / "pets", ["cat", "dog"]), images(tmp_path / "cars", ["bus", "car"])
    out = tmp_path / "run"
    train_recipe(recipe(pets), out)
    folder = RunFolder(out)
    accuracy = folder.read_summary()["test_accuracy"]
    folder.summary.unlink()  # as if it had been killed before its end
    with pytest.raises(CheckpointError, match=r"classes: \['cat', 'dog'\] in the checkpoint, \['bus', 'car'\] now"):
        train_recipe(recipe(cars), out, resume=True)
    pets.rename(tmp_path / "moved")
    assert train_recipe(recipe(tmp_path / "moved"), out, resume=True)["test_accuracy"] == accuracy


def test_weights_that_are_gone_are_written_again(tmp_path):
    pets, out = images(tmp_path / "pets", ["cat", "dog"]), tmp_path / "run"
    train_recipe(recipe(pets), out)
    weights = RunFolder(out).weights
    before = weights.read_bytes()
    weights.unlink()
    train_recipe(recipe(pets), out, resume=True)
    assert weights.read_bytes() == before
