"""A recipe from four answers is one that trains, and an answer that cannot be is told."""

import itertools
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from shortback.choices import Have, RecipeNetwork
from shortback.errors import UserError
from shortback.recipes.build import build_data
from shortback.recipes.interview import EVENT_NETWORKS, LARGE_NETWORKS, Answers, make_recipe, questions
from shortback.recipes.load import load_recipe
from tests.data.events.conftest import event_folder  # noqa: F401


@pytest.fixture
def roots(tmp_path):
    """A folder of small images and one of large ones."""
    for name, size in (("small", (40, 32)), ("large", (500, 375))):
        for label in ("a", "b"):
            (tmp_path / name / "train" / label).mkdir(parents=True)
            Image.new("RGB", size).save(tmp_path / name / "train" / label / "0.jpeg")
    return tmp_path


def recipe(folder, **answers):
    file = folder / "new.yaml"
    file.write_text(make_recipe(Answers(**{"root": None, "epochs": 3, **answers})))
    return load_recipe(str(file))


@pytest.mark.parametrize(("data", "network"), [*itertools.product(get_args(Have), get_args(RecipeNetwork))])
def test_every_answer_is_a_recipe_or_is_refused(roots, data, network):
    root = roots / "small" if data in ("images", "events") else None
    if data == "events" and network not in EVENT_NETWORKS:
        with pytest.raises(UserError, match="for recordings of events: choose resnet18"):
            recipe(roots, data=data, network=network, root=root)
        return
    made = recipe(roots, data=data, network=network, root=root)
    assert made.train.epochs == 3
    assert made.method == "evolutionary"
    assert made.data.kind == {"images": "image_folder", "events": "event_folder"}.get(data, data)
    assert made.data.root == root
    assert made.data.download == (data in ("cifar10", "cifar100"))
    assert made.optimizer.warmup_epochs <= 0.75
    assert made.model.residual == ("plain" if network == "plain32" else None)


def test_large_images_are_trained_on_as_those_of_imagenet(roots):
    for network in LARGE_NETWORKS:
        made = recipe(roots, data="images", network=network, root=roots / "large")
        assert (made.model.stem, made.data.image_size, made.data.root) == ("imagenet", 224, roots / "large")
    with pytest.raises(UserError, match="has vgg16 for images as large as these: choose resnet18, resnet34"):
        recipe(roots, data="images", network="vgg16", root=roots / "large")


def test_a_recipe_for_recordings_can_be_loaded_and_fits_their_sensor(event_folder, tmp_path):  # noqa: F811
    made = recipe(tmp_path, data="events", network="resnet20", root=event_folder)
    assert made.data.frames is not None
    assert (made.data.frames.size, made.data.split) == (8, None)
    data = made.data.model_copy(update={"validation_fraction": 0.2})
    assert (
        build_data(data, num_steps=2, seed=0).source.sensor == "height 8, width 8 (as the files or their formats say)"
    )
    flat = recipe(tmp_path, data="events", network="resnet20", root=event_folder / "train")
    assert flat.data.split == "fifth"
    assert "data.sensor" not in (tmp_path / "new.yaml").read_text()


def test_parts_of_a_split_are_not_taken_for_classes(event_folder, tmp_path):  # noqa: F811
    for name in ("train", "test"):
        (event_folder / name).rename(event_folder / name.capitalize())
    with pytest.raises(UserError, match=r"has Test, Train, which are parts of a split.*data\.kind=nmnist if it is"):
        recipe(tmp_path, data="events", network="resnet20", root=event_folder)


def test_a_recipe_for_recordings_says_that_the_sensor_is_missing(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    np.savez(tmp_path / "train" / "a" / "0.npz", t=[1, 2], x=[3, 4], y=[5, 6], p=[0, 1])
    made = recipe(tmp_path, data="events", network="resnet20", root=tmp_path)
    assert (made.data.sensor, made.data.frames) == (None, None)
    assert "# Set data.sensor to [height, width] of the camera" in (tmp_path / "new.yaml").read_text()


def test_a_batch_is_one_that_few_images_fill(tmp_path):
    for label, count in (("a", 20), ("b", 22)):
        (tmp_path / "train" / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 32)).save(tmp_path / "train" / label / f"{number}.png")
    made = recipe(tmp_path, data="images", network="resnet20", root=tmp_path)
    assert made.train.batch_size == 8  # 42 less a tenth are 37
    text = (tmp_path / "new.yaml").read_text()
    assert "as in cifar10-resnet20, including AutoAugment with the policy found for cifar10" in text
    recipe(tmp_path, data="cifar10", network="resnet20")
    assert "AutoAugment" not in (tmp_path / "new.yaml").read_text()
    assert "batch_size" not in (tmp_path / "new.yaml").read_text()


@pytest.mark.parametrize("name", ["0.tif", "0.tiff", "0.gif", "0.ppm", "0.bmp"])
def test_images_are_those_of_the_source_for_folders(tmp_path, name):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "00-notes.txt").write_text("no image")
    Image.new("RGB", (500, 375)).save(tmp_path / "train" / "a" / name)
    made = recipe(tmp_path, data="images", network="resnet18", root=tmp_path)
    assert made.model.stem == "imagenet"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"data": "mnist"}, "data='mnist': must be one of images, cifar10"),
        ({"network": "resnet17"}, "network='resnet17': must be one of resnet18"),
        ({"data": "images"}, "data=images: give root, the folder where it lies"),
        ({"root": Path("mine")}, "data=bundled comes with the package: leave root=mine out"),
        ({"data": "images", "root": Path("nowhere")}, "nowhere: must contain a folder train/"),
    ],
)
def test_wrong_answers(tmp_path, answers, message):
    with pytest.raises(UserError, match=message):
        recipe(tmp_path, **{"data": "bundled", "network": "resnet18", **answers})
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="empty: contains no image"):
        recipe(tmp_path, data="images", network="resnet18", root=tmp_path / "empty")


def test_the_questions_have_every_answer():
    asked = questions()
    assert set(asked["data"][1]) == set(get_args(Have))
    assert set(asked["network"][1]) == set(get_args(RecipeNetwork))


def test_folders_of_classes_may_be_links(tmp_path):
    for number in range(40):
        path = tmp_path / "elsewhere" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (500, 375)).save(path)
    (tmp_path / "root/train").mkdir(parents=True)
    for label in ("a", "b"):
        (tmp_path / "root/train" / label).symlink_to(tmp_path / "elsewhere")
    made = recipe(tmp_path, data="images", network="resnet18", root=tmp_path / "root")
    assert (made.model.stem, made.train.batch_size) == ("imagenet", 16)
