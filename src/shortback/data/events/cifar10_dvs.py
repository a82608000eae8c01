"""CIFAR10-DVS (Li et al., 2017): images of CIFAR-10 on a screen, moved in front of a DVS128 camera."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from shortback.choices import DVSSplit, check_choice
from shortback.data.events.aedat2 import SIDE, read_aedat2
from shortback.data.events.archives import unpacked
from shortback.data.events.cache import Recording
from shortback.data.events.frames import Frames
from shortback.data.events.recording import Events
from shortback.data.events.source import Labelled, make_source
from shortback.data.images import ImageData
from shortback.errors import UserError
from shortback.files import read_text

ARCHIVES = {  # class and MD5 of each
    "airplane": "0afd5c4bf9ae06af762a77b180354fdd",
    "automobile": "8438dfeba3bc970c94962d995b1b9bdd",
    "bird": "a9c207c91c55b9dc2002dc21c684d785",
    "cat": "52c63c677c2b15fa5146a8daf4d56687",
    "deer": "b6bf21f6c04d21ba4e23fc3e36c8a4a3",
    "dog": "f379ebdf6703d16e0a690782e62639c3",
    "frog": "cad6ed91214b1c7388a5f6ee56d08803",
    "horse": "e7cbbf77bec584ffbf913f00e682782a",
    "ship": "41c7bd7d6b251be82557c6cce9a7d5c9",
    "truck": "89f3922fd147d9aeff89e76a2b0b70a7",
}
CLASSES = tuple(ARCHIVES)
EACH, TEST = 1000, 100  # recordings of a class, and how many of them are for testing


def load_cifar10_dvs(
    root: str | Path, *, frames: Frames, split: str = "last100", skip_bad: bool = False, cache_dir: Path | None = None
) -> ImageData:
    """Load the 10,000 recordings: 900 of each class for training and 100 for testing.

    There is no official split. `split` selects the test recordings of each class:

    - `"last100"`: numbers 900 to 999;
    - `"lexicographic"`: the last 100 names in lexicographic order, 91 to 99 and 909 to 999;
    - `"seeded"`: 100 numbers, drawn with a fixed seed;
    - `"FILE.txt"`: the names in a file, one per line (`cifar10_airplane_900.aedat`), however many there are.

    The recordings show images of CIFAR-10: a network trained on those has seen the test images.

    Args:
        root: the folder that contains a folder per class, or the ten archives as downloaded (`airplane.zip`, ...).
        frames: how a recording becomes frames.
        split: see above.
        skip_bad: leave out recordings that cannot be read.
        cache_dir: where frames are cached, if not in `root`.

    Raises:
        FileNotFoundError: a class, or the file of the split, is missing.
        UserError: files do not match the split, or cannot be read.
    """
    root, held_out = Path(root).expanduser(), _test_names(split)
    train, test = Labelled([], []), Labelled([], [])
    for label, name in enumerate(CLASSES):
        for path in _numbered(_folder(root, name), name).values():
            part = test if path.name in held_out else train
            part.recordings.append(Recording(path))
            part.labels.append(label)
    return make_source(
        "cifar10_dvs",
        classes=CLASSES,
        train=train,
        test=test,
        read=_read,
        frames=frames,
        root=root,
        key="cifar10_dvs",
        skip_bad=skip_bad,
        cache_dir=cache_dir,
        split=Path(split).name,
        sensor=(SIDE, SIDE),
    )


def _read(recording: Recording) -> Events:
    return read_aedat2(recording.path, lies_on_its_side=True)


def _folder(root: Path, name: str) -> Path:
    folder, archive = root / name, root / f"{name}.zip"
    if not folder.is_dir() and not archive.is_file():
        raise FileNotFoundError(
            f"CIFAR10-DVS was not found: {root.absolute()} has neither a folder {name} nor {archive.name}. "
            f"One of the two is needed for each of {', '.join(CLASSES)}"
        )
    return unpacked(archive, folder, md5=ARCHIVES[name])


def _numbered(folder: Path, name: str) -> dict[int, Path]:
    """The recordings of a class by their numbers, in order."""
    pattern = re.compile(rf"cifar10_{name}_(\d+)\.aedat")
    found = {int(match[1]): path for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    missing = [number for number in range(EACH) if number not in found]
    if missing or len(found) > EACH:
        raise UserError(
            f"{folder}: the splits of CIFAR10-DVS need cifar10_{name}_0.aedat to cifar10_{name}_{EACH - 1}.aedat; "
            f"{len(found)} are there, and the first missing number is {missing[0] if missing else 'none'}"
        )
    return dict(sorted(found.items()))


def _test_names(split: str) -> set[str]:
    if split.endswith(".txt"):
        return _listed(Path(split).expanduser())
    check_choice("data.split", split, DVSSplit, or_else=("FILE.txt",))
    return {_file_name(name, number) for name in CLASSES for number in _test_numbers(split)}


def _listed(path: Path) -> set[str]:
    """Read a list of file names, and check that each is the name of a recording."""
    if not path.is_file():
        raise FileNotFoundError(f"data.split: {path.absolute()} is not there")
    names = {Path(line.strip()).name for line in read_text(path).splitlines() if line.strip()}
    known = {_file_name(name, number) for name in CLASSES for number in range(EACH)}
    if unknown := sorted(names - known):
        raise UserError(
            f"{path}: {len(unknown)} of its {len(names)} lines name no recording, for example {unknown[0]!r}; they are "
            f"{_file_name(CLASSES[0], 0)} to {_file_name(CLASSES[-1], EACH - 1)}"
        )
    return names


def _file_name(class_name: str, number: int) -> str:
    return f"cifar10_{class_name}_{number}.aedat"


def _test_numbers(split: str) -> set[int]:
    if split == "last100":
        return set(range(EACH - TEST, EACH))
    if split == "lexicographic":
        return set(sorted(range(EACH), key=str)[-TEST:])
    drawn = torch.randperm(EACH, generator=torch.Generator().manual_seed(0))
    return set(drawn[:TEST].tolist())
