"""What a recipe says of recordings reaches them, through a file and back."""

import pytest

from shortback.recipes.build import build_data
from shortback.recipes.load import RecipeError, load_recipe
from tests.data.events.conftest import event_folder  # noqa: F401


def test_the_sensor_is_a_height_and_a_width(tmp_path):
    settings = ["data.kind=event_folder", "data.root=x", "data.sensor=[48, 64]", "data.frames.keep_aspect=true"]
    recipe = load_recipe("nmnist-resnet20", settings=settings)
    assert recipe.data.sensor == (48, 64)
    assert recipe.data.frames is not None
    assert recipe.data.frames.keep_aspect
    (tmp_path / "a.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "a.yaml")) == recipe
    assert load_recipe("nmnist-resnet20").data.sensor is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.sensor=48", "data.sensor: Input should be a list, got 48"),
        ("data.sensor=[48]", "data.sensor.1: is missing"),
        ("data.sensor=[48, 0]", "data.sensor.1: Input should be greater than or equal to 1"),
        ("data.sensor=[48, 64, 2]", "data.sensor: Tuple should have at most 2 items"),
    ],
)
def test_what_is_no_size_is_named(setting, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("nmnist-resnet20", settings=["data.kind=event_folder", setting])


def test_images_have_no_sensor():
    with pytest.raises(
        RecipeError, match=r"data\.sensor is for recordings of events, and data\.kind=bundled has images"
    ):
        load_recipe("quickstart", settings=["data.sensor=[48, 64]"])


def test_settings_reach_the_data(event_folder):  # noqa: F811
    settings = [
        *("data.kind=event_folder", f"data.root={event_folder / 'train'}", "data.split=fifth", "data.sensor=[8, 8]"),
        *("data.frames={size: 8, keep_aspect: true}", "data.validation_fraction=0.2"),
    ]
    recipe = load_recipe("nmnist-resnet20", settings=settings)
    source = build_data(recipe.data, num_steps=2, seed=0).source
    assert source.sensor == "height 8, width 8 (as data.sensor says)"
    assert (len(source.train), len(source.test)) == (10, 2)
