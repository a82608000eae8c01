import pytest
import yaml

from shortback.build import check_recipe
from shortback.config import (
    Recipe,
    RecipeError,
    differences,
    load_recipe,
    parse_recipe,
    recipe_names,
    recipe_text,
)


def test_the_recipes_that_are_promised_are_there():
    expected = {
        f"{data}-{model}" for data in ("cifar10", "cifar100") for model in ("resnet18", "resnet19", "resnet20", "vgg16")
    }
    expected |= {"quickstart", "cifar100-resnet34", "imagenet-resnet18", "imagenet-resnet34"}
    assert expected <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("method", ["vanilla", "shortcut", "evolutionary"])
def test_every_recipe_is_valid_by_every_method(name, method):
    recipe = load_recipe(name, settings=[f"method={method}"])
    assert recipe.method == method
    assert recipe_text(name).startswith("# ")
    if method == "evolutionary":
        check_recipe(recipe)


def test_settings_are_dotted_and_yaml():
    recipe = load_recipe(
        "quickstart",
        settings=[
            "train.epochs=7",
            "branches.at=[layer1, layer2.0]",
            "optimizer.weight_decay=1e-3",
            "data.root=~/x",
            "compare=",
        ],
    )
    assert recipe.train.epochs == 7
    assert recipe.branches.at == ["layer1", "layer2.0"]
    assert recipe.optimizer.weight_decay == 1e-3
    assert str(recipe.data.root) == "~/x"
    assert recipe.compare is None


def test_a_file_is_a_recipe_too(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {name: resnet20}\n")
    assert load_recipe(str(file)).model.name == "resnet20"


def test_all_errors_are_reported_at_once_with_their_paths():
    settings = ["model.num_steps=0", "model.name=resnet21", "train.epohs=3", "branches.start=-1", "optimizer.lr=fast"]
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", settings=settings)
    message = str(caught.value)
    assert "5 problem(s)" in message
    assert "model.num_steps: Input should be greater than or equal to 1, got 0" in message
    assert "model.name: no such model; the nearest are resnet32, resnet20, resnet19, got 'resnet21'" in message
    assert "train.epohs: unknown key; did you mean epochs" in message
    assert "branches.start: Input should be greater than or equal to 0, got -1" in message
    assert "optimizer.lr: Input should be a valid number" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.epochs"], "write key=value"),
        (["train.epochs.x=3"], "'epochs' has no keys of its own"),
        (["train.epochs=[1"], "not a YAML value"),
        (["train.accumulate=3"], "train.accumulate=3 must divide train.batch_size"),
        (["branches.combine=convex", "branches.start=2"], "at most 1"),
        (["train.epochs=true_ish"], "train.epochs"),
        (["model.name=null"], "model.name"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("quickstart", settings=settings)


def test_what_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="nearest recipes are quickstart"):
        load_recipe("quikstart")
    file = tmp_path / "bad.yaml"
    file.write_text("- 1\n")
    with pytest.raises(RecipeError, match="not a recipe"):
        load_recipe(str(file))
    file.write_text("a: [\n")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(str(file))
    file.write_text("train: {epochs: 3}\n")
    with pytest.raises(RecipeError, match="model: is missing"):
        load_recipe(str(file))


def test_what_is_written_is_read_back():
    recipe = load_recipe("cifar10-resnet20")
    again = parse_recipe(yaml.safe_load(recipe.to_yaml()), name="again")
    assert again == recipe
    assert differences(recipe, again) == []
    other = load_recipe("cifar10-resnet20", settings=["train.epochs=3", "model.neuron.decay=0.5"])
    assert differences(recipe, other) == ["model.neuron.decay: 0.25, 0.5", "train.epochs: 400, 3"]


def test_a_recipe_is_not_changed_by_accident():
    recipe = Recipe.model_validate({"model": {"name": "resnet20"}})
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
