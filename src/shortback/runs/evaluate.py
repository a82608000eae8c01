"""Test the network that a run has trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shortback.errors import UserError
from shortback.export.operations import count_operations
from shortback.recipes.build import with_device_here
from shortback.recipes.data_settings import FramesConfig
from shortback.recipes.load import changed
from shortback.runs.folder import RunFolder
from shortback.runs.run import Run
from shortback.shortcuts.weights import load_weights
from shortback.spiking import SpikingNetwork
from shortback.training import evaluate

_MAY_CHANGE = (
    *("data.root", "data.url", "data.cache_dir", "data.cache_gb", "data.download", "data.skip_bad"),
    *("data.num_workers", "data.on_device", "train.device", "train.precision"),
)


def load_run(path: Path, *, settings: Sequence[str] = ()) -> tuple[Run, SpikingNetwork]:
    """Load a finished run with its data, and the network that it trained.

    Args:
        path: the run folder.
        settings: settings to change: data settings, such as `data.root=elsewhere` after a move,
            `train.device`, and `train.precision`, the precision of the computation; the weights are float32.

    Raises:
        ValueError: there is no finished run in `path`, a setting may not be changed, the data have other classes, or a
            file is damaged.
    """
    folder = RunFolder(path)
    recipe = folder.read_recipe()
    if not folder.weights.exists():
        raise UserError(f"{path} holds a run that is not finished: there is no {folder.weights.name} in it yet")
    weights = folder.read_weights()
    for setting in settings:
        if setting.partition("=")[0] not in _MAY_CHANGE:
            allowed = ", ".join(_MAY_CHANGE)
            raise UserError(f"-s {setting}: a run is tested as it was trained; only {allowed} can change")
    if not any(setting.startswith("train.device=") for setting in settings):
        recipe = with_device_here(recipe)
    run = Run.of(changed(recipe, settings, name=str(path)), folder=folder)
    _check_classes(folder, run.splits.source.classes)
    model = run.build_model()
    load_weights(model, weights)
    return run, model


def _check_classes(folder: RunFolder, classes: Sequence[str]) -> None:
    """Check that the data have the classes the network was trained on: folders may have been renamed."""
    trained = folder.read_summary().get("classes") if folder.is_finished else None
    if trained is None or trained == list(classes):
        return
    if len(trained) != len(classes):
        raise UserError(f"{folder.path} was trained on {len(trained)} classes, and the data have {len(classes)}")
    which = [
        f"{number} was {a!r} and is {b!r}" for number, (a, b) in enumerate(zip(trained, classes, strict=True)) if a != b
    ]
    raise UserError(f"{folder.path} was trained on other classes: {', '.join(which[:5])}")


def preprocessing(run: Run) -> dict[str, Any]:
    """Describe how images, or recordings of events, are prepared for the network.

    Returns:
        For images, their size, and the mean and standard deviation by channel; for recordings, the size of the sensor,
        the settings of frames, how events are divided among frames, and the order of channels. `pixels` describes the
        values in words.
    """
    source = run.splits.source
    if source.num_steps is None:
        return {
            "image_size": source.image_size,
            "pixels": "in [0, 1], then (x - mean) / std by channel",
            "mean": list(source.mean),
            "std": list(source.std),
        }
    frames = run.recipe.data.frames or FramesConfig()
    return {
        "image_size": source.image_size,
        "pixels": _PIXELS[frames.values],
        "channels": ["OFF (darker)", "ON (brighter)"],
        "sensor": source.sensor,
        "frames": {"num_steps": source.num_steps, **frames.model_dump(mode="json")},
        "events_of_a_frame": _EVENTS[frames.by],
        "pixels_of_a_frame": f"{_RESIZED[frames.resize]}; {_WHOLE[frames.keep_aspect]}",
    }


# What `shortback.data.events.frames` computes, in words.
_PIXELS = {
    "count": "numbers of events, at most 255, neither divided nor normalised",
    "binary": "1 where there was an event, else 0, not normalised",
}
_EVENTS = {
    "count": "event i of n (0 is the earliest) is in frame min(i // max(1, n // num_steps), num_steps - 1)",
    "duration": "event i at t[i] microseconds is in frame min(num_steps * (t[i] - t[0]) // (t[-1] - t[0]), "
    "num_steps - 1), of whole numbers",
}
_RESIZED = {
    "sum": "row y of a sensor of height h, from the top of an upright picture, is row y * size // whole + margin of "
    "the frame, and columns likewise; all its events count",
    "nearest": "row k + margin of the frame is row k * whole // size of a sensor of height h, from the top of an "
    "upright picture, where it has that row, and columns likewise; the events of others are left out",
}
_WHOLE = {
    False: "whole is h, margin 0",
    True: "whole is the longer side of the sensor, margin 0 along it and (size - (h - 1) * size // whole - 1) // 2 "
    "along the shorter",
}


def evaluate_run(path: Path, *, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Test a run: accuracy, also by number of time steps, firing rate of every layer of neurons, and operations.

    Args:
        path, settings: as for `load_run`. The run is tested in the precision that it was trained in;
            `train.precision=fp32` tests the network that `load` returns and exports hold.

    Raises:
        ValueError: see `load_run`.
    """
    run, model = load_run(path, settings=settings)
    fabric, num_steps = run.fabric, run.recipe.model.num_steps
    model.to(fabric.device)
    run.execution.prepare(model)
    test = run.loader(run.splits.source.test, training=False)
    is_sequence = run.splits.source.num_steps is not None  # then fewer steps are the first frames
    by_steps = {}
    for steps in range(1, num_steps + 1):
        model.num_steps = steps
        batches = ((x[:steps] if is_sequence else x, y) for x, y in test.epoch(0))
        by_steps[steps] = evaluate(model, batches, fabric=fabric)
    with fabric.autocast():
        operations = count_operations(model, test.epoch(0))
    tested = by_steps[num_steps]
    return {
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "test_images": tested.num_images,
        "precision": run.execution.precision,
        "accuracy_by_num_steps": {steps: result.accuracy for steps, result in by_steps.items()},
        "firing_rate_by_layer": {f"network.{name}": rate for name, rate in operations.firing_rate.items()},
        "operations": operations.to_dict(),
        "preprocessing": preprocessing(run),
    }
