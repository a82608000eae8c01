"""Make a recipe from the answers to four questions: which data, where it lies, which network, how many epochs."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from shortback.choices import Have, RecipeNetwork, check_choice
from shortback.data.events.event_folder import FIFTH, check_flat
from shortback.data.events.folders import class_names, files_in
from shortback.data.events.formats import READERS, read_recording
from shortback.data.events.sensor import SensorUnknownError
from shortback.data.image_files import FORMATS
from shortback.errors import UserError
from shortback.recipes.batch_size import fitting_batch_size
from shortback.recipes.build import check_recipe
from shortback.recipes.data_settings import FramesConfig
from shortback.recipes.load import merged, parse_recipe, read_tree
from shortback.recipes.schema import Recipe
from shortback.recipes.yaml_text import write_yaml

WHAT = {
    "images": "a folder of images: train/<class>/ and test/<class>/, or val/",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "events": "recordings of an event camera: train/<class>/ and test/<class>/, or <class>/ alone",
    "bundled": "no data yet: a part of Fashion-MNIST that comes with the package",
}
LARGE = 96  # pixels of the shorter side from which images are treated like those of ImageNet

# The recipe to extend, by network, where it is not one of CIFAR-10.
EVENT_NETWORKS = {"resnet18": "cifar10dvs-resnet18", "resnet20": "cifar10dvs-resnet20", "vgg16": "cifar10dvs-vggsnn"}
LARGE_NETWORKS = {"resnet18": "imagenet-resnet18", "resnet34": "imagenet-resnet34"}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers that a recipe is made from.

    Attributes:
        data: kind of data to train on.
        root: folder of the data; None for bundled or downloaded data.
        network: network to train; `plain32` has 32 layers without skips.
        epochs: number of epochs.
    """

    data: Have
    root: Path | None
    network: RecipeNetwork
    epochs: int


def make_recipe(answers: Answers) -> str:
    """The YAML of a recipe that extends one of the package's.

    Raises:
        ValueError: an answer that is not one of the choices, a folder without images, a network that has no recipe for
            recordings or large images, or any mistake in the resulting recipe.
    """
    check_choice("data", answers.data, Have)
    check_choice("network", answers.network, RecipeNetwork)
    base, data = _found(answers)
    tree: dict[str, Any] = {"method": "evolutionary", "data": data, "train": {"epochs": answers.epochs}}
    known = read_tree(base)
    if warmup := known.get("optimizer", {}).get("warmup_epochs"):
        tree["optimizer"] = {"warmup_epochs": min(warmup, answers.epochs / 4)}
    made = parse_recipe(merged(known, tree), name="the recipe")
    if answers.root is not None and answers.data in ("images", "events"):
        fits = _batch_size_for(answers.root, made)
        if fits < made.train.batch_size:
            tree["train"]["batch_size"] = fits
            made = parse_recipe(merged(known, tree), name="the recipe")
    check_recipe(made)
    unsaid = "sensor" in data
    policy = made.data.augment.auto_augment if answers.data == "images" else None
    return (
        f"# {answers.network} on {answers.data}; `shortback recipes show` prints all of its settings.\n"
        "# method: vanilla (no branches), shortcut (a constant coefficient), evolutionary (a falling one)\n"
        + ("# Set data.sensor to [height, width] of the camera: the recordings do not give it.\n" if unsaid else "")
        + (
            f"# Images are augmented as in {base}, including AutoAugment with the policy found for {policy};\n"
            "# data: {augment: {auto_augment: null}} turns it off. `shortback data show` draws the result.\n"
            if policy
            else ""
        )
        + write_yaml({"extend": base, **tree})
    )


def _batch_size_for(root: Path, recipe: Recipe) -> int:
    """A batch size that suits the number of images or recordings in a folder, at most the recipe's."""
    largest = recipe.train.batch_size
    folder = root / "train" if (root / "train").is_dir() else root
    files = (name for _, _, names in os.walk(folder, followlinks=True) for name in names if not name.startswith("."))
    held_out = recipe.data.validation_fraction + (0.2 if recipe.data.split == FIFTH else 0.0)
    enough = 4 * largest / (1 - held_out)
    count = sum(1 for _ in itertools.islice(files, math.ceil(enough)))
    return min(largest, fitting_batch_size(int(count * (1 - held_out))))


def _found(answers: Answers) -> tuple[str, dict[str, Any]]:
    """The recipe to extend, and its changed `data` settings."""
    root = None if answers.root is None else str(answers.root)
    network = answers.network
    if answers.data == "bundled":
        if root:
            raise UserError(
                f"data=bundled comes with the package: leave root={root} out, or choose the kind of data in it"
            )
        return f"cifar10-{network}", {"kind": "bundled", "augment": {"auto_augment": None}}
    if answers.data in ("cifar10", "cifar100"):
        base = f"{answers.data}-{network}" if network != "plain32" else "cifar10-plain32"
        return base, {"kind": answers.data, **({"root": root} if root else {"download": True})}
    if root is None:
        raise UserError(f"data={answers.data}: give root, the folder where it lies")
    if answers.data == "events":
        if network not in EVENT_NETWORKS:
            raise UserError(f"no recipe has {network} for recordings of events: choose {', '.join(EVENT_NETWORKS)}")
        return EVENT_NETWORKS[network], _of_recordings(Path(root))
    if not Path(root, "train").is_dir():
        raise UserError(f"{root}: must contain a folder train/, with a folder for each class")
    if min(_size_of_an_image(Path(root))) < LARGE:
        return f"cifar10-{network}", {"kind": "image_folder", "root": root}
    if network not in LARGE_NETWORKS:
        raise UserError(f"no recipe has {network} for images as large as these: choose {', '.join(LARGE_NETWORKS)}")
    return LARGE_NETWORKS[network], {"kind": "image_folder", "root": root, "validation_fraction": 0.1}


def _of_recordings(root: Path) -> dict[str, Any]:
    """The `data` settings for a folder of recordings, with frames no larger than the sensor.

    The first readable recording gives the sensor size; if it does not, `sensor` is null.
    """
    found: dict[str, Any] = {"kind": "event_folder", "root": str(root), "split": None}
    recordings = [path for path in files_in(root) if path.suffix.lower() in READERS] if root.is_dir() else []
    if not (root / "train").is_dir():
        if not root.is_dir() or len(class_names(root)) < 2:
            raise UserError(f"{root}: must contain a folder train/, or a folder for each class")
        check_flat(root, class_names(root), recordings)
        found["split"] = FIFTH
    for path in recordings:
        try:
            events = read_recording(path)
        except SensorUnknownError:
            return {**found, "sensor": None}
        except (UserError, OSError):
            continue  # reported when training loads the data
        return {**found, "frames": {"size": min(FramesConfig().size, events.height, events.width)}}
    return found


def _size_of_an_image(root: Path) -> tuple[int, int]:
    """Width and height of the first image in a folder, in any format that `image_folder` reads."""
    for folder, _, names in os.walk(root, followlinks=True):
        for name in (name for name in names if not name.startswith(".")):
            # The content decides what a file is, not its name; other files are reported when training loads the data.
            with contextlib.suppress(OSError), Image.open(Path(folder) / name, formats=FORMATS) as image:
                return image.size
    raise UserError(f"{root}: contains no image")


def questions() -> dict[str, tuple[str, dict[str, str]]]:
    """The multiple-choice questions by the name of the answer: each with its text, and a description of each choice."""
    networks = {
        "resnet18": "ResNet-18, the paper's",
        "resnet20": "ResNet-20: small, quick on a laptop",
        "resnet34": "ResNet-34, the paper's deep one",
        "vgg16": "VGG-16, or VGGSNN for recordings",
        "plain32": "32 layers without skips, where branches help most",
    }
    return {"data": ("What do you train on?", WHAT), "network": ("Which network?", networks)}
