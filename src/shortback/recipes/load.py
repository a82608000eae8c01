"""Read recipes from YAML, and compare them.

Unknown keys are errors, and all errors of a file are reported together.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import re
from collections.abc import Collection, Iterable
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from shortback.choices import Combine, nearest, usual_start
from shortback.recipes.methods import COEFFICIENTS, method_uses
from shortback.recipes.problems import in_words
from shortback.recipes.schema import Recipe
from shortback.recipes.training_settings import usual_coefficient
from shortback.recipes.yaml_text import RecipeError, read_keys, read_yaml, text_of
from shortback.words import quantity

# Settings on which no weight depends: where data lies and how it is read, and what is measured and written. With an
# adaptive schedule, `health.every` does matter.
WITHOUT_EFFECT = frozenset(
    {
        "data.root",
        "data.url",
        "data.cache_dir",
        "data.cache_gb",
        "data.download",
        "data.num_workers",
        "data.on_device",
        "data.skip_bad",
        "train.log_every",
        "train.checkpoint_every",
        "train.hang_minutes",
        "train.keep_best",
        "train.loggers",
        "health.every",
        "health.samples",
    }
)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("shortback") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def recipe_text(recipe: str) -> str:
    """The YAML of a recipe, given as the name of a packaged one or as a file.

    Raises:
        RecipeError: neither a name nor a file; the message has the nearest names.
    """
    if recipe in recipe_names():
        return (resources.files("shortback") / "recipes" / f"{recipe}.yaml").read_text()
    if _is_file(recipe):
        return text_of(Path(recipe))
    near = nearest(recipe, recipe_names(), or_else="")
    raise RecipeError(
        f"{recipe!r} is neither a recipe nor a file{near and f'; the nearest recipes are {near}'} "
        "(all of them: shortback recipes ls)"
    )


def first_sentence(text: str) -> str:
    """The first sentence of the comment that a recipe's YAML begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=\.) ", comment)[0]


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # a name too long, or with a null in it
        return False


def load_recipe(recipe: str, *, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply settings `key=value`, with a dotted key and a YAML value.

    With `extend: OTHER`, one of the package's recipes or a file beside this one, a recipe need only give what differs:
    sections are merged key by key, and any other value replaces the one in `OTHER`.

    If a setting changes `branches.combine` of a recipe that gives all values, such as a run's, a `start` and
    `coefficient` equal to the old form's defaults become the new form's, unless a setting gives them.

    Raises:
        RecipeError: lists everything that is wrong, each with its dotted path.
    """
    tree = read_tree(recipe)
    _apply_all(tree, settings)
    parsed = parse_recipe(tree, name=recipe)
    _require_combine(tree, name=recipe)
    return parsed


def read_tree(recipe: str, extending: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings that a recipe's YAML gives, merged into those of the recipe it extends."""
    if recipe in extending:
        raise RecipeError(f"{extending[0]}: recipes extend each other in a circle: {' > '.join((*extending, recipe))}")
    tree = copy.deepcopy(_tree(recipe_text(recipe), recipe))  # cached: the thousands of cells of a grid share it
    if "extend" not in tree:
        return tree
    base = tree.pop("extend")
    if not isinstance(base, str):
        raise RecipeError(f"{recipe}: extend: must be the name of a recipe or of a file beside this one, not {base!r}")
    beside = base if base in recipe_names() else str(Path(recipe).parent / base)
    try:
        recipe_text(beside)
    except RecipeError as error:
        raise RecipeError(f"{recipe}: extend: {error}") from None
    return merged(read_tree(beside, (*extending, recipe)), tree)


def at_another_place(text: str, recipe: str, to: Path) -> str:
    """The YAML of a recipe for the file `to`, with `extend` changed so that it still names the same file.

    Raises:
        RecipeError: `extend` is not a line of its own, which could be rewritten.
    """
    base = _tree(text, recipe).get("extend")
    if not isinstance(base, str) or base in recipe_names() or to.parent.resolve() == Path(recipe).parent.resolve():
        return text
    whole = (Path(recipe).parent / base).resolve()
    moved, count = re.subn(r"^extend *:.*$", lambda _: f"extend: {json.dumps(str(whole))}", text, flags=re.MULTILINE)
    if count != 1:
        raise RecipeError(f"{recipe}: extend: {base} is beside it; write extend: {whole} on its own line, then copy")
    return moved


def merged(base: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `tree` replacing its own, section by section."""
    result = dict(base)
    for key, value in tree.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


_tree = functools.lru_cache(maxsize=4)(lambda text, name: read_keys(text, name=name))


def _require_combine(tree: dict[str, Any], *, name: str) -> None:
    """Refuse a recipe without `branches.combine`: it once meant `additive`, and must not silently become `logits`."""
    branches = tree.get("branches", {})
    methods = tree.get("compare") or [tree.get("method", "evolutionary")]
    if isinstance(branches, dict) and "combine" not in branches and methods != ["vanilla"]:
        raise RecipeError(
            f"{name}: branches.combine is missing: write logits (the paper's form, with a coefficient that falls from "
            "0.25), or additive (a sum of losses, with one that falls from 1), which older versions assumed"
        )


def parse_recipe(tree: dict[str, Any], *, name: str) -> Recipe:
    """Check a tree of settings and make it a recipe; see `load_recipe`."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = in_words(error.errors())
        raise RecipeError(f"{name}: {quantity(len(lines), 'problem')}\n" + "\n".join(lines)) from None


def changed(recipe: Recipe, settings: Iterable[str], *, name: str) -> Recipe:
    """A recipe with settings `key=value` applied; see `load_recipe`."""
    tree = recipe.model_dump(mode="json")
    _apply_all(tree, settings)
    return parse_recipe(tree, name=name)


def differences(ours: Recipe, theirs: Recipe, *, ignoring: Collection[str] = ()) -> list[str]:
    """The differences between two recipes, except in the keys `ignoring`, each as a line `key: ours, theirs`.

    Settings of the coefficient that neither recipe's method uses are left out.
    """
    a, b = flatten(ours.model_dump(mode="json")), flatten(theirs.model_dump(mode="json"))
    unused = {key for key in COEFFICIENTS if not method_uses(ours.method, key) and not method_uses(theirs.method, key)}
    different = sorted(key for key in {*a, *b}.difference(ignoring, unused) if a.get(key) != b.get(key))
    return [f"{key}: {a.get(key)!r}, {b.get(key)!r}" for key in different]


def _apply_all(tree: dict[str, Any], settings: Iterable[str]) -> None:
    settings, written = list(settings), tree.get("branches")
    before: dict[str, Any] = dict(written) if isinstance(written, dict) else {}
    optimizer = _optimizer_in(tree)
    for setting in settings:
        _apply(tree, setting)
    _require_lr(optimizer, tree, settings)
    branches, form = tree.get("branches"), before.get("combine", "")
    said = {setting.partition("=")[0] for setting in settings}
    is_whole = form in get_args(Combine) and {"start", "coefficient"} <= before.keys()
    if "branches" in said or not is_whole or not isinstance(branches, dict) or branches.get("combine") == form:
        return
    usual = {"start": usual_start(form), "coefficient": usual_coefficient(form, before["start"])}
    for key, value in usual.items():
        if f"branches.{key}" not in said and branches.get(key) == value:
            del branches[key]


def _optimizer_in(tree: dict[str, Any]) -> str:
    optimizer = tree.get("optimizer")
    return optimizer.get("kind", "sgd") if isinstance(optimizer, dict) else "sgd"


def _require_lr(optimizer: str, tree: dict[str, Any], settings: Iterable[str]) -> None:
    """Refuse to keep a recipe's learning rate, chosen for `optimizer`, where settings choose another optimizer."""
    now = _optimizer_in(tree)
    if now == optimizer or "lr" not in (tree.get("optimizer") or {}):
        return
    if not any(setting.partition("=")[0] in ("optimizer", "optimizer.lr") for setting in settings):
        lr = tree["optimizer"]["lr"]
        raise RecipeError(
            f"-s optimizer.kind={now}: the recipe's learning rate of {lr} is for {optimizer}; set optimizer.lr as well"
        )


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, separator, value = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"-s {setting}: write key=value, for example -s train.epochs=3")
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        if node.get(parent) is None:  # missing, or a section given as null
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise RecipeError(f"-s {setting}: {parent!r} has no keys of its own")
    node[last] = read_yaml(value, name=f"-s {setting}")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a tree by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
