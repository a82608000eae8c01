"""Settings that would change nothing are refused, and those that change something are not."""

import pytest

from shortback.recipes.effect import check_effect, keys_of, without_effect
from shortback.recipes.load import load_recipe


@pytest.mark.parametrize(
    ("choice", "setting", "message"),
    [
        ("optimizer={kind: adamw}", "optimizer.momentum=0.5", "applies only to optimizer.kind=sgd, and this is adamw"),
        ("loss.kind=cross_entropy", "loss.tet_weight=0.5", "applies only to loss.kind=tet, and this is cross_entropy"),
        ("branches.schedule=linear", "branches.rate=3", "only to branches.schedule=exponential, and this is linear"),
        ("branches.schedule=linear", "branches.num_levels=3", "branches.schedule=step"),
        ("branches.schedule=linear", "branches.share=0.3", "branches.schedule=adaptive"),
        ("branches.schedule=adaptive", "branches.start=0.3", "and this is adaptive"),
        ("branches.schedule=adaptive", "branches.end=0.3", "linear or cosine or exponential or step, and"),
        ("branches.schedule=constant", "branches.end=0.3", "linear or cosine or exponential or step, and"),
        ("branches.schedule=constant", "branches.over=0.3", "and this is constant"),
        ("method=evolutionary", "branches.coefficient=2", "applies only to method=shortcut, and this is evolutionary"),
        ("method=shortcut", "branches.start=0.5", "has no effect on the method shortcut"),
        ("method=shortcut", "branches.schedule=cosine", "has no effect on the method shortcut"),
        ("method=vanilla", "branches.at=blocks", "has no effect on the method vanilla"),
    ],
)
def test_a_setting_of_another_kind_is_refused(choice, setting, message):
    recipe = load_recipe("cifar10-resnet20", settings=[choice, setting])
    with pytest.raises(ValueError, match=f"-s {setting.partition('=')[0]}=...: .*{message}"):
        check_effect(recipe, ["seed=3", choice, setting])
    assert without_effect(recipe, ["seed=3", choice]) is None  # what the recipe says by itself is no mistake


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.kind=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.5"],
        ["loss.kind=tet", "loss.tet_weight=0.5"],
        ["branches.schedule=exponential", "branches.rate=3", "branches.end=0.1", "branches.over=0.5"],
        ["branches.schedule=step", "branches.num_levels=3"],
        ["branches.schedule=adaptive", "branches.share=0.3", "branches.over=0.5"],
        ["branches.schedule=constant", "branches.start=0.3"],
        ["method=shortcut", "branches.coefficient=2"],
        ["method=shortcut", "branches.combine=additive", "branches.start=0.5"],
        ["compare=[vanilla, shortcut]", "branches.coefficient=2"],
    ],
)
def test_a_setting_of_the_kind_that_is_chosen_is_fine(settings):
    check_effect(load_recipe("cifar10-resnet20", settings=settings), settings)


def test_a_section_as_a_whole_says_its_keys():
    assert keys_of(["optimizer={kind: adamw, lr: 0.1}", "seed=3"]) == ["optimizer.kind", "optimizer.lr", "seed"]
    settings = ["optimizer={kind: adamw, momentum: 0.5}"]
    assert without_effect(load_recipe("cifar10-resnet20", settings=settings), settings).startswith(
        "optimizer.momentum=..."
    )


def test_a_method_that_is_chosen_beside_a_comparison_counts():
    settings = ["method=shortcut", "branches.coefficient=0.5"]
    recipe = load_recipe("quickstart", settings=settings)
    assert {one if isinstance(one, str) else one.method for one in recipe.compare} == {"vanilla", "evolutionary"}
    assert without_effect(recipe, settings) is None
    assert without_effect(recipe, settings[1:]).endswith(
        "and this is evolutionary, vanilla; choose that, or leave it out"
    )
    settings = ["method=evolutionary", "branches.coefficient=0.5"]
    assert without_effect(load_recipe("quickstart", settings=settings), settings).startswith("branches.coefficient=...")
