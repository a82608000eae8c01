"""The commands that follow training: eval, export and publish."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from shortback.choices import ExportFormat, NIRImporter
from shortback.console import choice_option, path_option, user_errors
from shortback.errors import UserError
from shortback.files import check_folder

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataSettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        metavar="KEY=VALUE",
        help="Change a data setting (e.g. data.root=FOLDER), or train.precision (e.g. fp32).",
    ),
]


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of a comparison.")],
    settings: DataSettingsOption = None,
    as_json: JsonOption = False,
    early_exit: Annotated[
        bool,
        typer.Option("--early-exit", help="Stop an image early, once the network or a kept branch is sure."),
    ] = False,
    picture: Annotated[
        Path | None, path_option("FILE", "Draw operations by layer, or the curves of --early-exit, e.g. as PNG.")
    ] = None,
) -> None:
    """Test a trained network: accuracy, also by number of steps, firing rate by layer, and operations."""
    with user_errors():
        from shortback.runs.evaluate import evaluate_run
        from shortback.runs.folder import runs_in

        if picture is not None:
            from shortback.reports.pictures import check_picture

            check_picture(picture, what="--picture")
            check_folder(picture.parent, what="--picture")
        if early_exit:
            _evaluate_early_exit(run, settings=settings or (), as_json=as_json, picture=picture)
            return
        runs = runs_in(run)
        if picture is not None and len(runs) > 1:
            raise UserError(f"--picture draws one run; {run} holds {', '.join(runs)}: name the folder of one")
        results = {name: evaluate_run(path, settings=settings or ()) for name, path in runs.items()}
        if picture is not None:
            from shortback.reports.pictures import save_picture
            from shortback.reports.plots import operations_by_layer

            (result,) = results.values()
            save_picture(operations_by_layer(result["operations"]), picture)
    if as_json:
        print(json.dumps(results.get("", results), indent=2))
        return
    for name, result in results.items():
        if name:
            print(f"{name}\n")
        _print_evaluation(result)


def _evaluate_early_exit(run: Path, *, settings: Sequence[str], as_json: bool, picture: Path | None) -> None:
    from shortback.runs.early_exit import evaluate_early_exit

    result = evaluate_early_exit(run, settings=settings)
    if picture is not None:
        from shortback.reports.pictures import save_picture
        from shortback.reports.plots import early_exit_curves

        save_picture(early_exit_curves(result), picture)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for kind, unit in (("time", "steps"), ("depth", "layers")):
        if kind not in result:
            continue
        tried = result[kind]
        print(f"in {kind}, computed in {tried['precision']}")
        print(f"threshold  accuracy  {'mean ' + unit:>11}  MACs an image  ACs an image")
        for point in tried["points"]:
            threshold = f"all {unit}" if point["threshold"] > 1 else f"{point['threshold']:g}"
            star = "  chosen" if point["threshold"] == tried["chosen_threshold"] else ""
            print(
                f"{threshold:>10} {point['accuracy']:8.2%}  {point['mean']:11.2f}  {point['macs']:13,.0f}  "
                f"{point['acs']:12,.0f}{star}"
            )
        print(f"chosen: {tried['chosen_by']}")


def _print_evaluation(result: dict[str, Any]) -> None:
    precision = result["precision"]
    print(f"test accuracy {result['test_accuracy']:.2%} on {result['test_images']} images in {precision}")
    if precision != "fp32":
        print("  as it was trained; -s train.precision=fp32 tests the network that is loaded and exported")
    print("accuracy by number of steps")
    for num_steps, accuracy in result["accuracy_by_num_steps"].items():
        print(f"  {num_steps:3d}  {accuracy:.2%}")
    print("firing rate by layer, per neuron and step")
    width = max(map(len, result["firing_rate_by_layer"]), default=0)
    for name, rate in result["firing_rate_by_layer"].items():
        print(f"  {name:{width}}  {rate:.4f}")
    from shortback.export.operations import Operations

    print(f"operations an image\n{Operations.from_dict(result['operations'])}")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
    to: Annotated[ExportFormat, choice_option("--to", ExportFormat, "Format; torch is a torch.export program.")],
    importer: Annotated[
        NIRImporter, choice_option("--for", NIRImporter, "Software that will read the NIR file.")
    ] = "any",
    streaming: Annotated[
        bool, typer.Option("--streaming", help="One frame per call, with the state as input and output (torch).")
    ] = False,
    test: Annotated[bool, typer.Option("--test", help="Also run the file on the whole test split.")] = False,
    settings: DataSettingsOption = None,
) -> None:
    """Write a trained network for other software, after checking that it fires the same spikes there."""
    with user_errors():
        from shortback.runs.export import export_run

        exported = export_run(
            run, out, to=to, settings=settings or (), importer=importer, streaming=streaming, test=test
        )
    print(exported.check)
    if exported.test_accuracy is not None:
        print(f"test accuracy of the file {exported.test_accuracy:.2%} in fp32")
        if exported.run_precision != "fp32" and exported.run_accuracy is not None:
            print(f"  of the run {exported.run_accuracy:.2%} in {exported.run_precision}, in which it was trained")
    print(f"{out}, and {out}.json beside it")


def publish(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FOLDER|hf:USER/NAME", help="New folder, or a repository on the Hugging Face hub."
        ),
    ],
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the weights, for the model card, e.g. mit.")
    ] = None,
    settings: DataSettingsOption = None,
) -> None:
    """Write a trained network with a model card, for others to load with sb.load."""
    with user_errors():
        from shortback.runs.sharing import publish

        print(publish(run, to, settings=settings or (), licence=licence))
