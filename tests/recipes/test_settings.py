from shortback.recipes.load import flatten, load_recipe
from shortback.recipes.settings import all_settings


def test_every_setting_is_there_with_what_it_takes():
    found = {setting.key: setting for setting in all_settings()}
    there = {key for key in flatten(load_recipe("events-quickstart").model_dump()) if not key.startswith("compare.")}
    assert there <= found.keys()
    assert found["train.epochs"] == (
        "train.epochs", "Passes over the training data.", "a whole number at least 1", "10",
    )  # fmt: skip
    assert found["model.name"].default == "required"
    assert found["model.neuron.reset"].takes == "`hard`, `soft`, `none`"
    assert [found[key].section for key in ("seed", "model.neuron.kind")] == ["", "model.neuron"]


def test_every_setting_says_what_it_is():
    silent = [setting.key for setting in all_settings() if not setting.means.endswith(".")]
    assert not silent
