"""Read recipes, which are YAML, and compare them.

Unknown keys are errors, and all errors of a file are reported together.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from shortback.choices import nearest
from shortback.errors import UserError
from shortback.recipes.schema import Recipe, Variant


class RecipeError(UserError):
    """A recipe that cannot be used; the message lists everything that is wrong with it."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("shortback") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def recipe_text(recipe: str) -> str:
    """The YAML of a recipe: the name of one that comes with the package, or a file.

    Raises:
        RecipeError: neither a name nor a file (with the nearest names).
    """
    if recipe in recipe_names():
        return (resources.files("shortback") / "recipes" / f"{recipe}.yaml").read_text()
    path = Path(recipe)
    if path.is_file():
        return path.read_text()
    raise RecipeError(
        f"{recipe!r} is neither a recipe nor a file; the nearest recipes are {nearest(recipe, recipe_names())} "
        "(all of them: shortback recipes ls)"
    )


def load_recipe(recipe: str, *, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe and change it by settings `key=value`, the key dotted and the value YAML.

    Raises:
        RecipeError: everything that is wrong, each with its dotted path.
    """
    try:
        tree = yaml.safe_load(recipe_text(recipe))
    except yaml.YAMLError as error:
        raise RecipeError(f"{recipe} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{recipe} is not a recipe: its top level must be keys such as model and train")
    for setting in settings:
        _apply(tree, setting)
    parsed = parse_recipe(tree, name=recipe)
    _refuse_unsaid_form(tree, name=recipe)
    return parsed


def _refuse_unsaid_form(tree: dict[str, Any], *, name: str) -> None:
    """A recipe that says nothing of it once meant `additive`, and is not to become `logits` in silence."""
    branches = tree.get("branches", {})
    methods = tree.get("compare") or [tree.get("method", "evolutionary")]
    if isinstance(branches, dict) and "combine" not in branches and methods != ["vanilla"]:
        raise RecipeError(
            f"{name}: branches.combine is not said: write logits (the paper's form, with a coefficient that falls from "
            "0.25), or additive (a sum of losses, with one that falls from 1), which a recipe without it was before"
        )


def parse_recipe(tree: dict[str, Any], *, name: str) -> Recipe:
    """Check a recipe that was read already; see `load_recipe`."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise RecipeError(f"{name}: {len(lines)} problem(s)\n" + "\n".join(lines)) from None


def changed(recipe: Recipe, settings: Iterable[str], *, name: str) -> Recipe:
    """A recipe with settings `key=value`; see `load_recipe`."""
    tree = recipe.model_dump(mode="json")
    for setting in settings:
        _apply(tree, setting)
    return parse_recipe(tree, name=name)


def differences(ours: Recipe, theirs: Recipe) -> list[str]:
    """What differs between two recipes, a line `key: ours, theirs` each."""
    a, b = flatten(ours.model_dump(mode="json")), flatten(theirs.model_dump(mode="json"))
    return [f"{key}: {a.get(key)!r}, {b.get(key)!r}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, separator, value = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"-s {setting}: write key=value, for example -s train.epochs=3")
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise RecipeError(f"-s {setting}: {parent!r} has no keys of its own")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"-s {setting}: {value!r} is not a YAML value") from None


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = _keys_at(problem["loc"][:-1])
        near = nearest(str(problem["loc"][-1]), known, or_else="")
        message = f"unknown key; {f'the nearest are {near}' if near else 'known are ' + ', '.join(known)}"
    elif problem["type"] == "missing":
        message = "is missing"
    elif not isinstance(problem["input"], dict):
        message = f"{message}, got {problem['input']!r}"
    return f"  {path}: {message}" if path else f"  {message}"


def _keys_at(path: tuple[Any, ...]) -> list[str]:
    if path[:1] == ("compare",):
        return list(Variant.model_fields)
    section: Any = Recipe
    for part in path:
        section = section.model_fields[part].annotation
    return list(section.model_fields)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
