"""`shortback export`: write the network that a run has trained for other software."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shortback.choices import ExportFormat, NIRImporter
from shortback.errors import UserError
from shortback.export.check import Check
from shortback.export.executors import nir_runner, onnx_runner, program_runner
from shortback.export.writing import check_writable, load_program, write
from shortback.runs.evaluate import load_run, preprocessing
from shortback.runs.folder import RunFolder
from shortback.runs.run import Run

NUM_IMAGES = 64


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        check: how the file differs from the run's network.
        test_accuracy: accuracy of the file on the test split, in [0, 1] and in float32; None if it was not tested.
        run_accuracy: test accuracy of the run, measured in `run_precision` at the end of training; None if unknown.
        run_precision: the precision of the run's recipe.
    """

    check: Check
    test_accuracy: float | None
    run_accuracy: float | None
    run_precision: str


def export_run(
    path: Path,
    out: Path,
    *,
    to: ExportFormat,
    settings: Sequence[str] = (),
    importer: NIRImporter = "any",
    streaming: bool = False,
    test: bool = False,
    num_images: int = NUM_IMAGES,
) -> Exported:
    """Export the network of a finished run, checked on test images in float32; see `shortback.export.write`.

    `OUT.json` also records how to prepare images, or recordings of events, and the names of the classes.

    Args:
        path, settings: as for `load_run`.
        test: whether to run the file on the whole test split too.
        num_images: number of test images to check the file with.

    Raises:
        ValueError: the run is not finished, or as for `write`.
    """
    check_writable(out, to=to, importer=importer, streaming=streaming)
    if test and streaming:
        raise UserError("--test: a streaming program takes a frame at a time; test it without --streaming")
    run, model = load_run(path, settings=settings)
    source = run.splits.source
    about: dict[str, Any] = {
        "classes": list(source.classes),
        "preprocessing": preprocessing(run),
    }
    tested: dict[str, Any] = {}

    def run_all(file: Path) -> dict[str, Any]:
        if test:
            tested.update(test_accuracy=_accuracy(run, file, to=to), test_precision="fp32")
        return tested

    check = write(
        model,
        _images(run, num_images),
        out,
        to=to,
        importer=importer,
        streaming=streaming,
        about=about,
        then=run_all,
    )
    folder = RunFolder(path)
    return Exported(
        check,
        tested.get("test_accuracy"),
        run_accuracy=folder.read_summary()["test_accuracy"] if folder.is_finished else None,
        run_precision=str(folder.read_recipe().train.precision),
    )


def _images(run: Run, count: int) -> Tensor:
    """The first test images, `[N, C, H, W]` or `[T, N, C, H, W]`."""
    batches, seen = [], 0
    for x, _ in run.loader(run.splits.source.test, training=False).epoch(0):
        batches.append(x.cpu())
        seen += x.shape[x.ndim - 4]
        if seen >= count:
            break
    whole = torch.cat(batches, dim=batches[0].ndim - 4)
    return whole[:, :count] if whole.ndim == 5 else whole[:count]


def _accuracy(run: Run, file: Path, *, to: ExportFormat) -> float:
    """The accuracy of an exported file on the test split."""
    logits = _logits_of(file, to=to, num_steps=run.recipe.model.num_steps)
    right = images = 0
    for x, y in run.loader(run.splits.source.test, training=False).epoch(0):
        right += int((logits(x.cpu()).argmax(1) == y.cpu()).sum())
        images += len(y)
    return right / images


def _logits_of(file: Path, *, to: ExportFormat, num_steps: int) -> Callable[[Tensor], Tensor]:
    """A function that runs an exported file, built once for all batches."""
    if to == "nir":
        import nir

        graph = nir.read(file)
        metadata = graph.metadata
        step_by_step = nir_runner(graph, num_steps=num_steps, dt=float(metadata["dt"]), reader=metadata["written_for"])
        return lambda x: step_by_step(x).outputs.mean(0)
    run = onnx_runner(file) if to == "onnx" else program_runner(load_program(file))
    return lambda x: run(x)[0]
