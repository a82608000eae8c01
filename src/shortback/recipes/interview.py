"""A recipe from the answers to four questions: what there is, where it lies, which network, how long."""

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
    "bundled": "nothing yet: a part of Fashion-MNIST that comes with the package",
}
LARGE = 96  # pixels from which images are cropped and resized as those of ImageNet are

# The recipe to begin from, where it is not that of CIFAR-10.
EVENT_NETWORKS = {"resnet18": "cifar10dvs-resnet18", "resnet20": "cifar10dvs-resnet20", "vgg16": "cifar10dvs-vggsnn"}
LARGE_NETWORKS = {"resnet18": "imagenet-resnet18", "resnet34": "imagenet-resnet34"}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a recipe is made from.

    Attributes:
        data: what there is to train on.
        root: where it lies; None for what comes with the package, or is to be downloaded.
        network: which; `plain32` are 32 layers without skips.
        epochs: how long.
    """

    data: Have
    root: Path | None
    network: RecipeNetwork
    epochs: int


def make_recipe(answers: Answers) -> str:
    """The YAML of a recipe, which extends one that comes with the package.

    Raises:
        ValueError: an answer that is none of the choices, a folder without images, a network that has no recipe for
            recordings or large images; all that the recipe itself may be wrong in.
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
        f"# {answers.network} on {answers.data}; `shortback recipes show` prints every setting of it.\n"
        "# method: vanilla (no branches), shortcut (a coefficient that stays), evolutionary (one that falls)\n"
        + ("# data.sensor is to be [height, width] of the camera: the recordings do not say it.\n" if unsaid else "")
        + (
            f"# Images are augmented as in {base}, by AutoAugment with the policy that was found for {policy} too;\n"
            "# data: {augment: {auto_augment: null}} leaves it out. `shortback data show` draws what comes of it.\n"
            if policy
            else ""
        )
        + write_yaml({"extend": base, **tree})
    )


def _batch_size_for(root: Path, recipe: Recipe) -> int:
    """A batch that fits the images or recordings in a folder, no larger than that of the recipe."""
    largest = recipe.train.batch_size
    folder = root / "train" if (root / "train").is_dir() else root
    files = (name for _, _, names in os.walk(folder) for name in names if not name.startswith("."))
    held_out = recipe.data.validation_fraction + (0.2 if recipe.data.split == FIFTH else 0.0)
    enough = 4 * largest / (1 - held_out)
    count = sum(1 for _ in itertools.islice(files, math.ceil(enough)))
    return min(largest, fitting_batch_size(int(count * (1 - held_out))))


def _found(answers: Answers) -> tuple[str, dict[str, Any]]:
    """The recipe to begin from, and what differs in its data."""
    root = None if answers.root is None else str(answers.root)
    network = answers.network
    if answers.data == "bundled":
        if root:
            raise UserError(
                f"data=bundled comes with the package: leave root={root} out, or choose the data that lies there"
            )
        return f"cifar10-{network}", {"kind": "bundled", "augment": {"auto_augment": None}}
    if answers.data in ("cifar10", "cifar100"):
        base = f"{answers.data}-{network}" if network != "plain32" else "cifar10-plain32"
        return base, {"kind": answers.data, **({"root": root} if root else {"download": True})}
    if root is None:
        raise UserError(f"data={answers.data}: say where it lies")
    if answers.data == "events":
        if network not in EVENT_NETWORKS:
            raise UserError(f"recordings of events have recipes for {', '.join(EVENT_NETWORKS)}, not for {network}")
        return EVENT_NETWORKS[network], _of_recordings(Path(root))
    if not Path(root, "train").is_dir():
        raise UserError(f"{root}: there must be a folder train/ in it, and in that a folder for each class")
    if min(_size_of_an_image(Path(root))) < LARGE:
        return f"cifar10-{network}", {"kind": "image_folder", "root": root}
    if network not in LARGE_NETWORKS:
        raise UserError(f"images as large as these have recipes for {', '.join(LARGE_NETWORKS)}, not for {network}")
    return LARGE_NETWORKS[network], {"kind": "image_folder", "root": root, "validation_fraction": 0.1}


def _of_recordings(root: Path) -> dict[str, Any]:
    """The data of a folder of recordings, with frames no larger than the sensor of the first that can be read.

    `sensor` is among it, as null, where that one does not say its size.
    """
    found: dict[str, Any] = {"kind": "event_folder", "root": str(root), "split": None}
    recordings = [path for path in files_in(root) if path.suffix.lower() in READERS] if root.is_dir() else []
    if not (root / "train").is_dir():
        if not root.is_dir() or len(class_names(root)) < 2:
            raise UserError(f"{root}: there must be a folder train/ in it, or a folder for each class")
        check_flat(root, class_names(root), recordings)
        found["split"] = FIFTH
    for path in recordings:
        try:
            events = read_recording(path)
        except SensorUnknownError:
            return {**found, "sensor": None}
        except (UserError, OSError):
            continue  # left for the training to find
        return {**found, "frames": {"size": min(FramesConfig().size, events.height, events.width)}}
    return found


def _size_of_an_image(root: Path) -> tuple[int, int]:
    """Width and height of the first image in a folder, of whatever kind `image_folder` reads."""
    for folder, _, names in os.walk(root):
        for name in (name for name in names if not name.startswith(".")):
            # What a file is stands in it, and not in its name; others are left for the training to find.
            with contextlib.suppress(OSError), Image.open(Path(folder) / name, formats=FORMATS) as image:
                return image.size
    raise UserError(f"{root}: no image is in it")


def questions() -> dict[str, tuple[str, dict[str, str]]]:
    """The questions with a choice of answers, by the name of the answer: the question, and what each answer is."""
    networks = {
        "resnet18": "ResNet-18, the paper's",
        "resnet20": "ResNet-20: small, quick on a laptop",
        "resnet34": "ResNet-34, the paper's deep one",
        "vgg16": "VGG-16, or VGGSNN for recordings",
        "plain32": "32 layers without skips: what branches help most",
    }
    return {"data": ("What do you train on?", WHAT), "network": ("Which network?", networks)}
