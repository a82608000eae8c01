"""The same network trained by several methods, with the same seed and budget, and one table of how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shortback.config import Recipe
from shortback.experiment import Say, branch_shares, settle, train_recipe


def compare(recipe: Recipe, out: Path, *, resume: bool, overwrite: bool, say: Say) -> dict[str, dict[str, Any]]:
    """Train a recipe once for each method in its `compare`, in a folder each under `out`, and print a table.

    Returns:
        The summaries by method.

    Raises:
        ValueError: a mistake in the recipe or a folder, before the first training.
    """
    assert recipe.compare is not None
    recipes = {method: recipe.model_copy(update={"method": method, "compare": None}) for method in recipe.compare}
    for method, one in recipes.items():
        settle(one, out / method, resume=resume, overwrite=overwrite)
    summaries = {
        method: train_recipe(one, out / method, resume=resume, overwrite=overwrite, say=say)
        for method, one in recipes.items()
    }
    Console(soft_wrap=True, markup=False).print(_table(summaries, out))
    say(f"each run, with its numbers and its stripped network, is in {out}")
    return summaries


def _table(summaries: dict[str, dict[str, Any]], out: Path) -> Table:
    table = Table(
        title="same network, seed and budget",
        caption="*  of the first layer, at the start of the first > last epoch\n"
        "** against a network with the same weights that never had branches",
        caption_justify="left",
    )
    table.add_column("method")
    for column in ("test\naccuracy", "epochs", "images/s", "branch share of\nfirst gradient*"):
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
