"""The commands for what comes after training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortback.choices import ExportFormat, NIRImporter
from shortback.console import user_errors


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
    to: Annotated[ExportFormat, typer.Option("--to", help="Format; torch is a torch.export program.")],
    importer: Annotated[NIRImporter, typer.Option("--for", help="Who will read the NIR file.")] = "any",
    streaming: Annotated[
        bool, typer.Option("--streaming", help="One frame at a time, with the state as input and output (torch).")
    ] = False,
    test: Annotated[bool, typer.Option("--test", help="Run the file on the whole test split too.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Of its data, e.g. data.root=FOLDER.")
    ] = None,
) -> None:
    """Write a trained network for other software, once that software has fired the same spikes."""
    with user_errors():
        from shortback.runs.export import export_run

        exported = export_run(
            run, out, to=to, settings=settings or (), importer=importer, streaming=streaming, test=test
        )
    print(exported.check)
    if exported.test_accuracy is not None:
        print(f"test accuracy of the file {exported.test_accuracy:.2%}")
    print(f"{out}, and {out}.json beside it")
