"""The commands that list, show, copy, check and make recipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from shortback.choices import Have, RecipeNetwork, nearest
from shortback.console import Command, path_option, user_errors
from shortback.errors import UserError
from shortback.files import check_folder

recipes_app = typer.Typer(help="List, show, copy, validate and make recipes.", no_args_is_help=True)

RecipeArgument = Annotated[str, typer.Argument(help="Name of a recipe (`shortback recipes ls`), or a YAML file.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.epochs=3.")
]


@recipes_app.command("ls")
def list_recipes() -> None:
    """List the recipes that come with Shortback."""
    from shortback.recipes.load import first_sentence, recipe_names, recipe_text

    names = recipe_names()
    for name in names:
        print(f"{name:{max(map(len, names))}}  {first_sentence(recipe_text(name))}")


@recipes_app.command("show", cls=Command)
def show_recipe(recipe: RecipeArgument, settings: SettingsOption = None) -> None:
    """Print a recipe with the value of every setting."""
    with user_errors():
        from shortback.recipes.load import load_recipe

        print(load_recipe(recipe, settings=settings or ()).to_yaml(), end="")


@recipes_app.command("settings")
def list_settings(
    prefix: Annotated[str, typer.Argument(help="Beginning of the keys, such as model.neuron; empty for all.")] = "",
) -> None:
    """List the settings of a recipe: what each is, what it takes, and its default."""
    with user_errors():
        from shortback.recipes.settings import all_settings

        known = list(all_settings())
        found = [setting for setting in known if setting.key.startswith(prefix)]
        if not found:
            names = dict.fromkeys(name for one in known for name in (one.section, one.key))
            near = nearest(prefix, names, or_else="model, data, branches, train")
            raise UserError(f"no setting begins with {prefix}; the nearest are {near}")
        for key, means, takes, default in found:
            print(f"{key}  ({takes}; default: {default})\n    {means}".replace("`", ""))


@recipes_app.command("copy")
def copy_recipe(recipe: RecipeArgument, to: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Copy a recipe to a file, for you to change."""
    with user_errors():
        from shortback.recipes.load import at_another_place, recipe_text

        text = recipe_text(recipe)
        check_folder(to if to.is_dir() else to.parent, what="the folder")
        if to.is_dir():
            to = to / f"{Path(recipe).stem}.yaml"
        if to.exists():
            raise UserError(f"{to} already exists; name another file")
        to.write_text(at_another_place(text, recipe, to))
        print(to)


@recipes_app.command("validate", cls=Command)
def validate_recipe(recipe: RecipeArgument, settings: SettingsOption = None) -> None:
    """Check a recipe and build its network, without data."""
    with user_errors():
        from shortback.recipes.build import check_recipe
        from shortback.recipes.effect import check_effect
        from shortback.recipes.load import load_recipe

        parsed = load_recipe(recipe, settings=settings or ())
        check_recipe(parsed)
        check_effect(parsed, settings or ())
        print(f"{recipe}: fine")


@recipes_app.command("new")
def new_recipe(
    out: Annotated[Path, path_option("FILE", "YAML file to write.")] = Path("recipe.yaml"),
    data: Annotated[str | None, typer.Option(help=f"Data: {', '.join(get_args(Have))}.")] = None,
    root: Annotated[Path | None, path_option("FOLDER", "Folder of the data.")] = None,
    network: Annotated[str | None, typer.Option(help=f"Network: {', '.join(get_args(RecipeNetwork))}.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training data.")] = None,
) -> None:
    """Write a recipe from up to four questions; those answered by an option are not asked."""
    with user_errors():
        from shortback.recipes.interview import Answers, make_recipe, questions

        if out.exists():
            raise UserError(f"{out} already exists; name another file with --out")
        check_folder(out.parent, what="--out")
        asked = questions()
        data = data or _choose("--data", *asked["data"])
        if root is None and data in ("images", "events"):
            root = Path(_ask("--root", "Where is the data? The path of a folder"))
        network = network or _choose("--network", *asked["network"])
        if epochs is None:
            epochs = _ask("--epochs", "How many epochs? A few show that it runs; training takes 100 or more", kind=int)
        answers = Answers(data=data, root=root, network=network, epochs=epochs)  # pyright: ignore[reportArgumentType]
        out.write_text(make_recipe(answers))
        print(f"{out} is written. Next steps:\n  shortback train {out}\n  shortback diagnose {out}")


def _choose(option: str, question: str, choices: dict[str, str]) -> str:
    """Ask for one of several choices until one of them is the answer."""
    width = max(map(len, choices))
    lines = [question, *(f"  {name:{width}}  {meaning}" for name, meaning in choices.items())]
    question = "\n".join(lines)
    while True:
        answer = _ask(option, f"{question}\n", suffix="> ", choices=choices)
        if answer in choices:
            return answer
        question = f"{answer!r} is none of {', '.join(choices)}"


def _ask(
    option: str, question: str, *, kind: type = str, suffix: str = " > ", choices: Iterable[str] | None = None
) -> Any:
    """Ask until there is an answer that `kind` accepts."""
    if not sys.stdin.isatty():
        known = f"; one of {', '.join(choices)}" if choices else ""
        raise UserError(f"{option} is missing, and stdin is not a terminal{known}")
    while True:
        answer = typer.prompt(question, default="", show_default=False, prompt_suffix=suffix).strip()
        if not answer:
            question = f"an answer is needed, or {option} on the command line; Ctrl-C quits"
            suffix = " > "
            continue
        try:
            return kind(answer)
        except ValueError:
            question, suffix = f"{answer!r} is not a whole number; Ctrl-C quits", " > "
