"""Numbers that no memory holds are refused before it is asked for."""

import pytest

from shortback.recipes.build import check_recipe
from shortback.recipes.load import load_recipe


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.width=1e9", "no network is that wide"),
        ("model.width=10000", r"4\.6e\+13 parameters need .* GiB with their gradients, and this machine has"),
        ("data.image_size=1000000", "a batch of 64 images of 1000000 x 1000000 pixels over 2 steps needs"),
        ("train.batch_size=1000000000000", "a batch of 1000000000000 images"),
        ("model.num_steps=100000000", "over 100000000 steps"),
    ],
)
def test_what_cannot_be_held(setting, message):
    recipe = load_recipe("quickstart", settings=[setting, "compare=null"])
    with pytest.raises(ValueError, match=message):
        check_recipe(recipe)


def test_what_can_passes():
    check_recipe(load_recipe("quickstart", settings=["compare=null"]))
