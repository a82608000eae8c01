"""The command line: thin, and quick to print help, as heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from shortback import __version__
from shortback.cli_deploy import JsonOption, evaluate, export, publish
from shortback.cli_recipes import RecipeArgument, SettingsOption, recipes_app
from shortback.console import Command, closing_line, fail, path_option, say, user_errors
from shortback.errors import UserError
from shortback.files import check_folder

app = typer.Typer(
    help="Train deep spiking neural networks with shortcut branches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(recipes_app, name="recipes")
data_app = typer.Typer(help="Look at data, and pack images.", no_args_is_help=True)
app.add_typer(data_app, name="data")

ThresholdOption = Annotated[
    list[float] | None,
    typer.Option("--threshold", metavar="ACCURACY", help="Report the time to this validation accuracy, e.g. 0.6."),
]


def main() -> None:
    """The `shortback` command."""
    app()


@app.command(cls=Command)
def train(
    recipe: RecipeArgument,
    settings: SettingsOption = None,
    out: Annotated[Path | None, path_option("FOLDER", "Folder of the run; runs/RECIPE by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder first.")] = False,
) -> None:
    """Train a network from a recipe."""
    with user_errors():
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other")
        from shortback.recipes.effect import check_effect
        from shortback.recipes.load import load_recipe

        parsed = load_recipe(recipe, settings=settings or ())
        check_effect(parsed, settings or ())
        folder = out or Path("runs") / Path(recipe).stem
        from shortback.runs.train import train_recipe

        if parsed.compare is None:
            summary = train_recipe(parsed, folder, resume=resume, overwrite=overwrite, say=say)
            say(closing_line(summary, folder))
            return
        from shortback.runs.compare import check_settings, compare

        check_settings(parsed, settings or ())
        compare(parsed, folder, resume=resume, overwrite=overwrite, say=say)


app.command("eval", cls=Command)(evaluate)
app.command(cls=Command)(export)
app.command()(publish)


@app.command(cls=Command)
def ablate(
    recipe: RecipeArgument,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "vanilla,shortcut,evolutionary",
    seeds: Annotated[int, typer.Option(help="Runs per method, seeded from the recipe's seed upwards.")] = 3,
    vary: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE,VALUE", help="An axis of the grid: a setting and its values.")
    ] = None,
    settings: SettingsOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs to train side by side.")] = 1,
    out: Annotated[Path | None, path_option("FOLDER", "Folder of the runs; runs/RECIPE-ablation by default.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the grid and an estimate of its time, without running it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow more than 500 runs.")] = False,
    thresholds: ThresholdOption = None,
) -> None:
    """Train a recipe with several methods and seeds, and say whether the difference is real."""
    with user_errors():
        from shortback.ablation.grid import Axis, build_grid

        cells = build_grid(
            recipe,
            settings=settings or (),
            methods=[method.strip() for method in methods.split(",")],
            seeds=seeds,
            axes=[Axis.parse(text) for text in vary or ()],
            many=yes or plan,
        )
        from shortback.ablation.command import Ablation

        out = out or Path("runs") / f"{Path(recipe).stem}-ablation"
        if not plan:
            check_folder(out, what="--out")
        ablation = Ablation(recipe, cells, out=out)
        if plan:
            ablation.print_plan(jobs=jobs)
            return
        from shortback.training import Interrupted

        try:
            failed = ablation.run(jobs=jobs, thresholds=thresholds or ())
        except Interrupted as stop:
            message = f"stopped by {stop}; run the same command again to resume"
            fail(message, code=128 + stop.signal_number, cause=stop)
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of ablations, comparisons or single runs.")],
    out: Annotated[
        Path | None,
        path_option("FOLDER", "Folder of the page; the first of FOLDERS by default."),
    ] = None,
    thresholds: ThresholdOption = None,
) -> None:
    """Rewrite the results and page of an ablation, or of several combined."""
    with user_errors():
        from shortback.ablation.command import report_folders

        report_folders(folders, out or folders[0], thresholds=thresholds or ())


@app.command(cls=Command)
def diagnose(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or the folder of a run.")],
    settings: SettingsOption = None,
    as_json: JsonOption = False,
    html: Annotated[Path | None, path_option("FILE", "Write an HTML page with pictures.")] = None,
    figures: Annotated[Path | None, path_option("FOLDER", "Write the pictures as PNG files.")] = None,
) -> None:
    """Measure gradients by layer and time step, judge them, and try possible remedies."""
    with user_errors():
        from shortback.recipes.effect import check_effect
        from shortback.recipes.load import load_recipe
        from shortback.runs.diagnose import check_recipe_gradients, check_run_gradients

        for folder, option in ((html and html.parent, "--html"), (figures, "--figures")):
            if folder is not None:
                check_folder(folder, what=option)
        if Path(recipe).is_dir():
            if settings:
                raise UserError("-s changes a recipe; a run is diagnosed as it was trained")
            checkup = check_run_gradients(Path(recipe))
        else:
            parsed = load_recipe(recipe, settings=settings or ()).model_copy(update={"compare": None})
            check_effect(parsed, settings or ())
            checkup = check_recipe_gradients(parsed)
        if html is not None:
            from shortback.runs.gradient_page import write_gradient_page

            write_gradient_page(html, checkup)
        if figures is not None:
            from shortback.reports.pictures import save_pictures

            save_pictures(checkup.report.plots, figures)
    if as_json:
        print(json.dumps({"title": checkup.title, **checkup.report.to_dict()}, indent=2))
        return
    print(f"{checkup.title}\n{checkup.report}")
    if html is not None:
        print(f"\nthe page is in {html}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    question: Annotated[str | None, typer.Argument(help="Name of a benchmark; without it, all are listed.")] = None,
) -> None:
    """Run a benchmark on this machine; options after its name are its own, such as --quick and --out FILE."""
    with user_errors():
        from shortback.bench import questions, run

        if question is not None:
            run(question, context.args)
            return
        for name, asked in questions().items():
            print(f"{name:14}  {asked}")


@data_app.command("show", cls=Command)
def show_data(
    recipe: RecipeArgument,
    settings: SettingsOption = None,
    out: Annotated[Path, path_option("FILE", "Picture to write.")] = Path("samples.png"),
    count: Annotated[int, typer.Option(min=1, max=100, help="Number of samples.")] = 8,
) -> None:
    """Draw training samples of a recipe, before and after augmentation."""
    with user_errors():
        from shortback.recipes.load import load_recipe
        from shortback.runs.show_data import write_samples

        check_folder(out.parent, what="--out")
        recipe_read = load_recipe(recipe, settings=settings or ())
        print(write_samples(recipe_read, out, count=count))


@data_app.command("pack")
def pack_data(
    root: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with train/ and test/, each with one folder per class.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the shards.")],
    shard_mb: Annotated[float, typer.Option(min=0.001, help="Size of a shard, in 2^20 bytes.")] = 128,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be decoded.")] = False,
) -> None:
    """Pack a folder of images into shards for data.kind=shards: tar files that WebDataset reads too."""
    with user_errors():
        from shortback.data.shards import pack_folder

        index = pack_folder(root, out, shard_bytes=round(shard_mb * 2**20), skip_bad=skip_bad)
        files = [shard for split in index.splits.values() for shard in split.shards]
        print(f"{len(files)} shards of {index.name}, {sum(file.size for file in files) / 1e6:.1f} MB, in {out}")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"shortback {__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what was chosen, and why.")] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("shortback").setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no GPU
