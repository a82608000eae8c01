"""Train the same network by several methods or variants, with the same seed and budget, and compare them in a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shortback.choices import Method
from shortback.errors import UserError
from shortback.processes import is_first
from shortback.recipes.effect import keys_of
from shortback.recipes.load import parse_recipe
from shortback.recipes.schema import Recipe, Variant
from shortback.runs.folder import RunFolder
from shortback.runs.summary import Summary
from shortback.runs.train import Say, check, train_recipe
from shortback.training.rows import read_epochs

_OF_A_VARIANT = {"combine", "coefficient", "start"}


def compare(recipe: Recipe, out: Path, *, resume: bool, overwrite: bool, say: Say) -> dict[str, Summary]:
    """Train a recipe once for each side of its `compare`, each in a folder of its own under `out`, and print a table.

    Returns:
        The summaries by the name of the method or variant.

    Raises:
        ValueError: a mistake in the recipe or a folder, found before the first training.
    """
    assert recipe.compare is not None
    if RunFolder(out).recipe.exists():
        raise UserError(f"--out {out} holds a single run, not a comparison; name another folder")
    recipes = dict(_side(recipe, side) for side in recipe.compare)
    for method, one in recipes.items():
        check(one, out / method, resume=resume, overwrite=overwrite)
    summaries = {
        method: train_recipe(one, out / method, resume=resume, overwrite=overwrite, say=say, name=method)
        for method, one in recipes.items()
    }
    if is_first():
        Console(soft_wrap=True, markup=False).print(comparison_table(summaries, out))
    say(f"each run, with its numbers and its stripped network, is in {out}")
    return summaries


def check_settings(recipe: Recipe, settings: Iterable[str]) -> None:
    """Check that no setting `key=value` is overridden by the sides of a recipe's `compare`.

    Args:
        recipe: the recipe, with the settings applied.

    Raises:
        ValueError: a setting is overridden; the message says what to write instead.
    """
    sides = recipe.compare or []
    variants = [side.name for side in sides if not isinstance(side, str)]
    for key in keys_of(settings) if sides else ():
        if key == "method":
            names = ", ".join(side if isinstance(side, str) else side.name for side in sides)
            raise UserError(
                f"-s method=...: the recipe compares {names}, each with its own method; add -s compare= to train by one"
            )
        if variants and key in {f"branches.{name}" for name in _OF_A_VARIANT}:
            raise UserError(
                f"-s {key}=...: {', '.join(variants)} of compare would not follow this setting, as variants have their "
                "own; add -s compare= to train by one method, or set it in compare, in a recipe file"
            )


def _side(recipe: Recipe, side: Method | Variant) -> tuple[str, Recipe]:
    """The name and the recipe of one side of a comparison."""
    if isinstance(side, str):
        return side, recipe.model_copy(update={"method": side, "compare": None})
    tree = recipe.model_dump()
    kept = {key: value for key, value in tree["branches"].items() if key not in _OF_A_VARIANT}
    own = side.model_dump(include=_OF_A_VARIANT, exclude_none=True)
    tree |= {"method": side.method, "compare": None, "branches": kept | own}
    return side.name, parse_recipe(tree, name=side.name)


def comparison_table(summaries: dict[str, Summary], out: Path) -> Table:
    """The results of compared runs, whose folders are in `out`."""
    table = Table(
        title="same network, seed and budget",
        caption="*  of the first layer, at the start of the first > last epoch\n"
        "** against a network with the same weights that never had branches",
        caption_justify="left",
    )
    table.add_column("method", overflow="fold")
    for column in ("test\naccuracy", "epochs", "images/s", "branch\nshare of\nfirst\ngradient*"):
        table.add_column(column, justify="right")
    table.add_column("stripped\nlogits**")
    for method, summary in summaries.items():
        shares = branch_shares(out / method)
        table.add_row(
            method,
            f"{summary['test_accuracy']:.2%}",
            str(summary["epochs"]),
            f"{summary['images_per_second']:.0f}",
            f"{shares[0]:.2f} > {shares[-1]:.2f}",
            "bit-equal" if summary["stripped_is_bit_equal"] else "NOT bit-equal",
        )
    return table


def branch_shares(path: Path) -> list[float]:
    """The branches' share of the first layer's gradient at the start of each epoch of a run."""
    return [row["branch_share"] or 0.0 for row in read_epochs(RunFolder(path).metrics)]
