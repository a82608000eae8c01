import copy
import functools

import pytest
import yaml

from shortback.recipes.build import build_schedule, check_recipe
from shortback.recipes.load import (
    RecipeError,
    at_another_place,
    changed,
    differences,
    flatten,
    load_recipe,
    parse_recipe,
    recipe_names,
    recipe_text,
)
from shortback.recipes.schema import Recipe
from shortback.runs import compare as comparison
from shortback.schedules import Constant, Linear


def test_the_recipes_that_are_promised_are_there():
    expected = {
        f"{data}-{model}" for data in ("cifar10", "cifar100") for model in ("resnet18", "resnet19", "resnet20", "vgg16")
    }
    expected |= {"quickstart", "cifar100-resnet34", "imagenet-resnet18", "cifar10-resnet34", "imagenet-resnet34"}
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


def test_a_coefficient_follows_a_start_with_an_exponent():
    settings = ["branches={at: blocks, combine: additive}", "branches.start=5e-1"]
    branches = load_recipe("cifar10-resnet20", settings=settings).branches
    assert (branches.coefficient, branches.start) == (0.5, 0.5)


def test_a_file_is_a_recipe_too(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("method: vanilla\nmodel: {name: resnet20}\n")
    assert load_recipe(str(file)).model.name == "resnet20"


OLD = {
    "method: evolutionary\n": {},
    "method: shortcut\nbranches: {start: 0.5}\n": {"coefficient": 0.5, "start": 0.5},
    "compare: [vanilla, evolutionary]\nbranches: {at: stages}\n": {"at": "stages"},
}


@pytest.mark.parametrize(("text", "means"), OLD.items(), ids=str)
def test_a_recipe_that_does_not_say_how_outputs_are_combined_is_refused_or_means_what_it_did(tmp_path, text, means):
    file = tmp_path / "mine.yaml"
    file.write_text(f"model: {{name: resnet20}}\n{text}")
    with pytest.raises(RecipeError, match=r"branches.combine is missing: write logits .* or additive"):
        load_recipe(str(file))
    branches = load_recipe(str(file), settings=["branches.combine=additive"]).branches
    before = {"at": "blocks", "combine": "additive", "start": 1.0, "coefficient": 1.0, "end": 0.0}
    assert before | means == {key: getattr(branches, key) for key in before}


@pytest.mark.parametrize(
    ("branches", "coefficient", "start"),
    [
        ({}, 1.0, 0.25),
        ({"start": 0.5}, 1.0, 0.5),
        ({"coefficient": 2.0}, 2.0, 0.25),
        ({"combine": "additive"}, 1.0, 1.0),
        ({"combine": "convex", "start": 0.5}, 0.5, 0.5),
        ({"combine": "additive", "start": 0.5, "coefficient": 2.0}, 2.0, 0.5),
        ({"combine": "additive", "start": "0.5"}, 0.5, 0.5),
    ],
)
def test_the_coefficients_depend_on_how_outputs_are_combined(branches, coefficient, start):
    found = parse_recipe({"model": {"name": "resnet20"}, "branches": branches}, name="it").branches
    assert (found.coefficient, found.start) == (coefficient, start)


def test_a_run_folder_of_before_means_what_it_meant():
    """A resolved recipe had every key, and `start` for both methods."""
    branches = {"at": "stages", "weights": "sum", "combine": "additive", "schedule": "linear", "start": 0.5, "end": 0.0}
    tree = {"method": "shortcut", "model": {"name": "resnet20"}, "branches": branches}
    assert build_schedule("shortcut", parse_recipe(tree, name="it").branches) == Constant(value=0.5)


PAPER = [
    f"{data}-{model}"
    for data in ("cifar10", "cifar100")
    for model in ("resnet18", "resnet19", "resnet34", "resnet20", "vgg16")
]


@pytest.mark.parametrize("name", [*PAPER, "imagenet-resnet18", "imagenet-resnet34"])
def test_the_recipes_of_the_paper_have_the_settings_of_its_section_5(name):
    recipe = load_recipe(name)
    on_cifar = name.startswith("cifar")
    assert (recipe.model.neuron.decay, recipe.model.neuron.threshold, recipe.model.neuron.reset) == (0.5, 1.0, "hard")
    assert not recipe.model.neuron.detach_reset
    optimizer = recipe.optimizer
    assert (optimizer.kind, optimizer.lr, optimizer.weight_decay) == ("adamw", 0.01 if on_cifar else 4e-3, 0.02)
    assert (optimizer.final_lr, optimizer.warmup_epochs, recipe.loss.label_smoothing) == (0, 0, 0)
    assert (recipe.train.batch_size, recipe.train.epochs) == (128, 300)
    augment = recipe.data.augment
    assert augment.flip
    assert (augment.cutout, augment.mixup, augment.cutmix) == (0, 0, 0)
    if on_cifar:
        assert (augment.crop_padding, augment.auto_augment) == (4, "cifar10")
    branches = recipe.branches
    assert (branches.combine, branches.weights, recipe.method) == ("logits", "sum", "evolutionary")
    assert build_schedule("vanilla", branches) == Constant(value=0.0)
    assert build_schedule("shortcut", branches) == Constant(value=1.0)
    assert build_schedule("evolutionary", branches) == Linear(start=0.25, end=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.epochs"], "write key=value"),
        (["train.epochs.x=3"], "'epochs' has no keys of its own"),
        (["train.epochs=[1"], "-s train.epochs=.*not valid YAML"),
        (["train.accumulate=3"], "train.accumulate=3 must divide train.batch_size"),
        (["branches.combine=convex", "branches.start=2"], "at most 1"),
        (["train.epochs=true_ish"], "train.epochs"),
        (["model.name=null"], "model.name"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("quickstart", settings=settings)


def test_a_variant_is_a_method_with_other_branches():
    recipe = load_recipe("quickstart")
    names = dict(comparison._side(recipe, side) for side in recipe.compare)
    assert list(names) == ["vanilla", "evolutionary-logits", "evolutionary"]
    paper, ours = names["evolutionary-logits"], names["evolutionary"]
    assert differences(paper, ours) == ["branches.combine: 'logits', 'additive'"]
    assert (paper.method, paper.compare) == ("evolutionary", None)
    twice = recipe.compare[1].model_copy(update={"combine": "convex", "start": 2.0})
    with pytest.raises(RecipeError, match="at most 1"):
        comparison._side(recipe, twice)
    with pytest.raises(RecipeError, match="has a name twice: vanilla, vanilla"):
        load_recipe("quickstart", settings=["compare=[vanilla, vanilla]"])
    with pytest.raises(RecipeError, match="compare"):
        load_recipe("quickstart", settings=["compare=[{name: a/b, method: vanilla, combine: logits, start: 1}]"])
    with pytest.raises(RecipeError, match=r"compare.0.metod: unknown key; the nearest are method"):
        load_recipe("quickstart", settings=["compare=[{name: a, metod: vanilla}]"])
    with pytest.raises(RecipeError, match=r"1 problem\n  compare.0: Input should be 'vanilla'"):
        load_recipe("quickstart", settings=["compare=[vanila]"])


@pytest.mark.parametrize(
    ("text", "settings", "lr"),
    [
        ("optimizer: {kind: adamw}", [], 1e-3),
        ("optimizer: {kind: adamw, lr: 0.01}", [], 0.01),
        ("optimizer: {kind: adamw}", ["optimizer.kind=sgd"], 0.1),
        ("optimizer: {momentum: 0.5}", ["optimizer.kind=adamw"], 1e-3),
        ("optimizer: {lr: 0.3}", ["optimizer.kind=adamw", "optimizer.lr=0.01"], 0.01),
        ("optimizer: {lr: 0.3}", ["optimizer.kind=sgd"], 0.3),
        ("optimizer: {lr: 0.3}", ["optimizer={kind: adamw}"], 1e-3),
        ("optimizer: null", ["optimizer.kind=adamw"], 1e-3),
    ],
)
def test_the_learning_rate_is_the_optimizers_own(tmp_path, text, settings, lr):
    (tmp_path / "own.yaml").write_text(f"method: vanilla\nmodel: {{name: resnet20}}\n{text}\n")
    assert load_recipe(str(tmp_path / "own.yaml"), settings=settings).optimizer.lr == lr


def test_another_optimizer_does_not_inherit_a_learning_rate():
    with pytest.raises(RecipeError, match=r"kind=sgd: the recipe's learning rate of 0\.003 is for adamw; set optim"):
        load_recipe("events-quickstart", settings=["optimizer.kind=sgd"])
    with pytest.raises(RecipeError, match=r"kind=adamw: .* 0\.1 is for sgd"):
        changed(load_recipe("quickstart"), ["optimizer.kind=adamw"], name="a run")


def test_a_key_of_a_section_that_is_null_makes_the_section():
    settings = ["data.frames=null", "data.frames.size=32"]
    assert load_recipe("events-quickstart", settings=settings).data.frames.size == 32


@pytest.mark.parametrize("name", ["..", ".", ".hidden"])
def test_a_variant_has_no_name_that_leads_out_of_its_folder(name):
    variant = f"{{name: {name}, method: vanilla, combine: logits, start: 1}}"
    with pytest.raises(RecipeError, match=r"compare\.0\.name: String should match pattern"):
        load_recipe("quickstart", settings=[f"compare=[{variant}]"])
    assert load_recipe("quickstart", settings=[f"compare=[{variant.replace(name, 'a.b')}]"]).compare[0].name == "a.b"


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
    other = load_recipe("cifar10-resnet20", settings=["train.epochs=3", "model.neuron.decay=0.25"])
    assert differences(recipe, other) == ["model.neuron.decay: 0.5, 0.25", "train.epochs: 300, 3"]


def test_a_recipe_is_not_changed_by_accident():
    recipe = Recipe.model_validate({"model": {"name": "resnet20"}})
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_differs_from_the_defaults(name):
    """All but `branches.combine`, which a recipe has to say."""
    tree = yaml.safe_load(recipe_text(name))
    whole = parse_recipe(tree, name=name)
    for key in flatten(tree):
        *parents, last = key.split(".")
        without = copy.deepcopy(tree)
        node = functools.reduce(dict.__getitem__, parents, without)
        del node[last]
        if key == "branches.combine":
            continue
        try:
            same = parse_recipe(without, name=name) == whole
        except RecipeError:  # the key is required
            continue
        assert not same, key


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.num_steps=yes", "num_steps: must be a number; YAML reads yes"),
        ("train.epochs=true", "epochs: must be a number"),
        ("optimizer.lr=on", "lr: must be a number"),
        ("compare=[]", "compares nothing"),
        ("compare=[vanilla,vanilla]", "has a name twice"),
        ("model.neuron.threshold=0", "greater than 0"),
        ("model.neuron.decay=1.5", "less than or equal to 1"),
        ("model.neuron.decay=-0.5", "greater than or equal to 0"),
        ("optimizer.final_lr=5", r"optimizer\.final_lr=5 is above optimizer\.lr="),
    ],
)
def test_numbers_that_cannot_work(setting, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("quickstart", settings=[setting])


def test_words_that_are_no_numbers_stay_what_they_are():
    assert load_recipe("quickstart", settings=["train.compile=off"]).train.compile == "off"


def test_a_name_too_long_for_a_file_is_no_recipe():
    with pytest.raises(ValueError, match="neither a recipe nor a file"):
        load_recipe("x" * 5000)


def test_a_recipe_extends_another(tmp_path):
    own, further = tmp_path / "own.yaml", tmp_path / "further.yaml"
    own.write_text("extend: cifar10-resnet20\ntrain: {epochs: 7}\nmodel: {neuron: {decay: 0.25}}\n")
    further.write_text("extend: own.yaml\nseed: 3\ncompare: [vanilla]\nbranches: {at: [layer1]}\n")
    base = load_recipe("cifar10-resnet20")
    settings = ["train.epochs=7", "model.neuron.decay=0.25"]
    assert load_recipe(str(own)) == load_recipe("cifar10-resnet20", settings=settings)
    read = load_recipe(str(further), settings=["train.batch_size=32"])
    assert (read.seed, read.compare, read.branches.at, read.train.epochs) == (3, ["vanilla"], ["layer1"], 7)
    assert (read.train.batch_size, read.optimizer, read.model.name) == (32, base.optimizer, base.model.name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extend: [cifar10-resnet20]", r"must be the name of a recipe or of a file beside this one, not \['cifar10"),
        ("extend: cifar10-resnet2O", r"own.yaml: extend: .*cifar10-resnet2O. is neither a recipe nor a file"),
        ("extend: own.yaml", r"extend each other in a circle: .*own.yaml > .*own.yaml"),
        ("extend: cifar10-resnet20\ntrain: {epoch: 3}", "train.epoch: unknown key"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    ("settings", "again", "start", "coefficient"),
    [
        ([], ["branches.combine=additive"], 1.0, 1.0),
        ([], ["branches.combine=additive", "branches.start=0.25"], 0.25, 0.25),
        ([], ["branches.combine=additive", "branches.coefficient=2"], 1.0, 2.0),
        (["branches.coefficient=2"], ["branches.combine=additive", "branches.start=0.5"], 0.5, 2.0),
        ([], ["branches.combine=logits"], 0.25, 1.0),
        ([], ["branches={combine: additive, start: 0.25}"], 0.25, 0.25),
        (["branches.start=0.5"], ["branches.combine=additive"], 0.5, 0.5),
        (["branches.coefficient=2"], ["branches.combine=additive"], 1.0, 2.0),
        (["branches.combine=additive"], ["branches.combine=logits"], 0.25, 1.0),
        (["branches.combine=additive", "branches.start=0.5"], ["branches.combine=logits"], 0.5, 1.0),
    ],
)
def test_another_form_of_the_loss_brings_its_coefficients_to_the_recipe_of_a_run(
    tmp_path, settings, again, start, coefficient
):
    """Which says every value, those that went without saying too."""
    resolved = load_recipe("cifar10-resnet20", settings=settings)
    (tmp_path / "recipe.yaml").write_text(resolved.to_yaml())
    for read in (load_recipe(str(tmp_path / "recipe.yaml"), settings=again), changed(resolved, again, name="it")):
        assert (read.branches.start, read.branches.coefficient) == (start, coefficient)


def test_a_start_that_was_written_stays_with_another_form(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("model: {name: resnet20}\nbranches: {combine: logits, start: 0.25}\n")
    assert load_recipe(str(own), settings=["branches.combine=additive"]).branches.start == 0.25


def test_the_older_word_for_tensorboard_changes_the_list_of_a_run():
    resolved = load_recipe("cifar10-resnet20", settings=["train.loggers=[csv]"])
    for settings, loggers in (
        (["train.tensorboard=true"], ("csv", "tensorboard")),
        (["train.tensorboard=false"], ("csv",)),
        (["train.loggers=[tensorboard, csv]", "train.tensorboard=false"], ("csv",)),
        (["train.loggers=[]", "train.tensorboard=true"], ("tensorboard",)),
    ):
        assert changed(resolved, settings, name="it").train.loggers == loggers


def test_a_variant_has_the_usual_coefficients_of_its_form(tmp_path):
    own = tmp_path / "own.yaml"
    sides = (
        "[{name: a, method: shortcut, combine: additive, start: 0.5}, {name: b, method: shortcut, combine: logits}, "
        "{name: c, method: evolutionary, combine: additive}, {name: d, method: evolutionary, combine: logits}]"
    )
    own.write_text(f"extend: cifar10-resnet20\ncompare: {sides}\nbranches: {{combine: convex, start: 0.75}}\n")
    recipe = load_recipe(str(own))
    found = dict(comparison._side(recipe, side) for side in recipe.compare)
    coefficients = {name: (one.branches.start, one.branches.coefficient) for name, one in found.items()}
    assert coefficients == {"a": (0.5, 0.5), "b": (0.25, 1.0), "c": (1.0, 1.0), "d": (0.25, 1.0)}
    assert {one.branches.at for one in found.values()} == {"stages"}
    assert parse_recipe(yaml.safe_load(recipe.to_yaml()), name="again") == recipe


def test_coefficients_of_another_method_are_no_difference():
    """So that runs of before a variant's `coefficient` had its `start` for default go on."""

    def recipe(method, *settings):
        settings = [f"method={method}", "compare=null", "branches.combine=additive", *settings]
        return load_recipe("quickstart", settings=settings)

    before, now = (
        "branches={combine: additive, start: 0.5, coefficient: 1.0}",
        "branches={combine: additive, start: 0.5}",
    )
    assert differences(recipe("evolutionary", now), recipe("evolutionary", before)) == []
    assert differences(recipe("shortcut", now), recipe("shortcut", before)) == ["branches.coefficient: 0.5, 1.0"]
    lines = ["branches.coefficient: 0.5, 1.0", "method: 'evolutionary', 'shortcut'"]
    assert differences(recipe("evolutionary", now), recipe("shortcut", before)) == lines
    fall = ["branches.over=0.5", "branches.coefficient=1"]
    assert differences(recipe("shortcut", *fall), recipe("shortcut")) == []
    assert differences(recipe("vanilla", *fall), recipe("vanilla")) == []
    assert differences(recipe("evolutionary", *fall), recipe("evolutionary")) == ["branches.over: 0.5, 1.0"]
    assert differences(recipe("vanilla", "branches.at=stages"), recipe("vanilla")) == [
        "branches.at: 'stages', 'blocks'"
    ]


def test_a_recipe_at_another_place_finds_what_it_extends(tmp_path):
    home, away = tmp_path / "a dir", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    (home / "base.yaml").write_text("extend: cifar10-resnet20\nseed: 7\n")
    own = home / "own.yaml"
    own.write_text("# mine\nextend: base.yaml  # beside\ntrain: {epochs: 3}\n")
    (away / "own.yaml").write_text(at_another_place(own.read_text(), str(own), away / "own.yaml"))
    assert load_recipe(str(away / "own.yaml")) == load_recipe(str(own))
    assert (away / "own.yaml").read_text().startswith("# mine\nextend: ")
    assert at_another_place(own.read_text(), str(own), home / "copy.yaml") == own.read_text()
    base = (home / "base.yaml").read_text()
    assert at_another_place(base, str(home / "base.yaml"), away / "b.yaml") == base
    own.write_text("{extend: base.yaml, seed: 1}\n")
    with pytest.raises(RecipeError, match=r"own.yaml: extend: base.yaml is beside it; write extend: /"):
        at_another_place(own.read_text(), str(own), away / "own.yaml")
