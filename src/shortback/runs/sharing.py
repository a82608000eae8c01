"""`shortback publish` and `sb.load`: share a trained network as a folder, also on the Hugging Face hub."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shortback import __version__
from shortback.errors import UserError
from shortback.export.operations import Operations
from shortback.extras import need_extra
from shortback.files import write_text
from shortback.recipes.build import build_model
from shortback.recipes.load import parse_recipe
from shortback.recipes.schema import Recipe
from shortback.recipes.yaml_text import write_yaml
from shortback.runs.evaluate import evaluate_run
from shortback.runs.folder import RunFolder
from shortback.runs.summary import Summary
from shortback.shortcuts.weights import load_weights
from shortback.spiking import SpikingNetwork
from shortback.words import quantity

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
HUB = "hf:"


def load(place: Path | str) -> SpikingNetwork:
    """Load the trained network from a published folder or from the folder of a finished run.

    Args:
        place: a folder, or `hf:USER/NAME` on the Hugging Face hub, which is read from the cache without a connection.

    Returns:
        The network in `eval()`, on the CPU.

    Raises:
        ValueError: the folder holds no model, the hub does not have the name, the extra `hub` is not installed, or
            weights do not fit (the message names them all).
    """
    folder = _downloaded(str(place)) if str(place).startswith(HUB) else Path(place)
    if (folder / CONFIG).exists():
        config = _read_config(folder / CONFIG)
    elif (folder / "recipe.yaml").exists():
        run = RunFolder(folder)
        if not run.is_finished:
            raise UserError(f"{folder} holds a run that is not finished: there is no {run.summary.name} in it yet")
        config = _config(run.read_recipe(), run.read_summary(), run.read_weights())
    else:
        raise UserError(f"{folder} holds no model: there is neither a {CONFIG} from `shortback publish` nor a run")
    if not (folder / WEIGHTS).exists():
        raise UserError(f"{folder} holds no {WEIGHTS}")
    recipe = parse_recipe({"model": config["model"]}, name=str(folder))
    model = build_model(recipe.model, num_classes=config["num_classes"], in_channels=config["in_channels"])
    load_weights(model, folder / WEIGHTS)
    return model.eval()


def publish(run: Path, to: str, *, settings: Sequence[str] = (), licence: str | None = None) -> str:
    """Publish the network of a finished run: configuration, weights, and a card with its measured accuracy.

    The run is tested once more, in float32, as `load` returns the network. If it was trained and tested in another
    precision, the card states both accuracies.

    Args:
        run, settings: as for `load_run`.
        to: a new or empty folder, or `hf:USER/NAME` on the Hugging Face hub, where you must be logged in.
        licence: licence of the weights, such as `"apache-2.0"`, for the card.

    Returns:
        The folder, or the name on the hub.

    Raises:
        ValueError: the run is not finished, the folder is not empty, the extra `hub` is not installed, or the hub
            refuses, with its message.
    """
    if to.startswith(HUB):
        need_extra("hub", "huggingface_hub")
        with tempfile.TemporaryDirectory() as folder:
            _write(run, Path(folder), settings=settings, licence=licence)
            return _uploaded(Path(folder), to)
    folder = Path(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; name another folder")
    _write(run, folder, settings=settings, licence=licence)
    return str(folder)


def _write(run: Path, folder: Path, *, settings: Sequence[str], licence: str | None) -> None:
    trained = RunFolder(run)
    recipe = trained.read_recipe()
    if not trained.is_finished:
        raise UserError(f"{run} holds a run that is not finished: there is no {trained.summary.name} in it yet")
    tested = evaluate_run(run, settings=["train.precision=fp32", *settings])  # as others load the network
    summary = trained.read_summary()
    config = _config(recipe, summary, trained.read_weights())
    config["preprocessing"] = tested["preprocessing"]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    shutil.copyfile(trained.weights, folder / WEIGHTS)
    write_text(folder / CARD, _card(recipe, summary, tested, config, licence=licence))


def _config(recipe: Recipe, summary: Summary, weights: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `config.json`: what `load` needs to build the network, and the names of the classes."""
    classes = summary.get("classes")
    if classes is None:
        raise UserError("the run was made by a version that did not store the names of its classes: train it again")
    return {
        "library": "shortback",
        "version": __version__,
        "model": recipe.model.model_dump(mode="json", exclude_none=True),
        "num_classes": len(classes),
        "in_channels": _in_channels(recipe, weights, num_classes=len(classes)),
        "classes": list(classes),
    }


def _in_channels(recipe: Recipe, weights: Mapping[str, Any], *, num_classes: int) -> int:
    """Channels of the images, read from the only weight whose shape depends on their number."""
    one, two = (build_model(recipe.model, num_classes=num_classes, in_channels=c).state_dict() for c in (1, 2))
    (name,) = (name for name in one if one[name].shape != two[name].shape)
    return weights[name].shape[1]


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON: {error}") from error
    needed = ("model", "num_classes", "in_channels")
    missing = [key for key in needed if not isinstance(config, dict) or key not in config]
    if missing:
        raise UserError(f"{file} is not from `shortback publish`: there is no {', '.join(missing)} in it")
    return config


def _downloaded(place: str) -> Path:
    """Download a model from the hub, or find it in the cache, and return its folder."""
    need_extra("hub", "huggingface_hub")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = place.removeprefix(HUB)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, CARD]))
    except LocalEntryNotFoundError as error:
        raise UserError(f"{place}: the hub cannot be reached, and the model is not in the cache") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"{place}: {next(iter(str(error).splitlines()), 'not there')}") from error


def _uploaded(folder: Path, place: str) -> str:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name = place.removeprefix(HUB)
    try:
        huggingface_hub.create_repo(name, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=name, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"{place}: {next(iter(str(error).splitlines()), 'refused')}") from error
    return place


def accuracy_interval(accuracy: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy on `count` images; it covers the choice of images, not of the seed.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    z = 1.959964
    centre = (accuracy + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def _card(
    recipe: Recipe, summary: Summary, tested: dict[str, Any], config: dict[str, Any], *, licence: str | None
) -> str:
    """The text of the model card, with the front matter that the hub reads."""
    accuracy, count = tested["test_accuracy"], tested["test_images"]
    low, high = accuracy_interval(accuracy, count)
    operations = Operations.from_dict(tested["operations"])
    head = ["---", "library_name: shortback", "tags: [spiking-neural-network, shortback]"]
    head += [write_yaml({"license": licence}).rstrip()] if licence else []
    neuron = recipe.model.neuron
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    trained = ""
    if recipe.train.precision != tested["precision"]:
        trained = f"; {summary['test_accuracy']:.2%} in {recipe.train.precision}, as it was trained"
    on_images = f", on {summary['train_images']} images" if "train_images" in summary else ""
    events = "events_of_a_frame" in config["preprocessing"]
    by_steps = ", ".join(f"T={steps} {value:.2%}" for steps, value in tested["accuracy_by_num_steps"].items())
    return "\n".join(
        [
            *head,
            "---",
            "",
            f"# {recipe.model.name}, spiking, {recipe.model.num_steps} steps, on {recipe.data.kind}",
            "",
            "```python",
            "import shortback as sb",
            "",
            'model = sb.load("this folder, or hf:USER/NAME")',
            "```",
            "",
            f"- test accuracy {accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}) on {count} "
            f"images in {tested['precision']}; {by_steps}{trained}",
            f"- neurons: {neuron.kind}, surrogate {neuron.surrogate.kind}",
            f"- trained by the method {recipe.method}, {quantity(summary['epochs'], 'epoch')}, seed {summary['seed']}"
            f"{on_images}: the recipe is below",
            f"- {operations.macs:,.0f} MACs and {operations.acs:,.0f} ACs an image; arithmetic only, no data movement, "
            f"in 45 nm: {operations.arithmetic_uj:.3g} uJ (as an ANN {operations.arithmetic_uj_of_ann:.3g} uJ)",
            f"- {summary['num_parameters']:,} parameters; made with {versions}",
            f"- licence of the weights: {licence or 'not stated'}",
            "",
            f"{'Frames of events' if events else 'Images'} must be {config['preprocessing']['pixels']}; {CONFIG} says "
            f"how {'recordings become frames' if events else 'to prepare them'}, and names the classes.",
            "",
            "```yaml",
            recipe.without_paths().to_yaml().rstrip(),
            "```",
            "",
        ]
    )
