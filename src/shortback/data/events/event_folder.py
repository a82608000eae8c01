"""Your own recordings: a folder for training and one for testing, each with a folder per class."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from shortback.data.events.cache import Recording
from shortback.data.events.folders import class_names, labelled, split_by_fifths
from shortback.data.events.formats import read_recording
from shortback.data.events.frames import Frames
from shortback.data.events.recording import Events
from shortback.data.events.sensor import SensorUnknownError, Size, check_size, shown
from shortback.data.events.source import Labelled, make_source
from shortback.data.images import ImageData
from shortback.errors import UserError
from shortback.words import quantity

TEST_NAMES = ("test", "val")
SPLIT_NAMES = ("train", "training", "testing", *TEST_NAMES)
FIFTH = "fifth"
NUM_LOOKED_AT = 50  # recordings examined for a message about the sensor
log = logging.getLogger("shortback")


def load_event_folder(
    root: str | Path,
    *,
    frames: Frames,
    sensor: Size | None = None,
    split: str | None = None,
    skip_bad: bool = False,
    cache_dir: Path | None = None,
) -> ImageData:
    """Load recordings from `root/train/<class>/` and `root/test/<class>/` (or `val`), in any mix of known formats.

    Args:
        root: the folder.
        frames: how a recording becomes frames.
        sensor: height and width, in pixels, for files that do not contain them.
        split: `"fifth"` if the class folders lie in `root` itself: a fifth of the files of each class, drawn with a
            fixed seed, is for testing.
        skip_bad: leave out recordings that cannot be read.
        cache_dir: where frames are cached, if not in `root`.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: files are not recordings, classes differ, recordings cannot be read or differ in size from `sensor`,
            or a file does not contain its size and `sensor` is not given.
    """
    root = Path(root).expanduser()
    if sensor is not None:
        check_size(sensor, name=f"sensor=[{sensor[0]}, {sensor[1]}]", what="is")
    classes, train, test = _listed(root, split)
    try:
        return make_source(
            root.resolve().name,
            classes=classes,
            train=train,
            test=test,
            read=functools.partial(_read, sensor=sensor),
            frames=frames,
            root=root,
            key="event_folder, one sensor" if sensor is None else f"event_folder, sensor {sensor[0]} {sensor[1]}",
            skip_bad=skip_bad,
            cache_dir=cache_dir,
            split=split,
            size_source="as the files or their formats say" if sensor is None else "as data.sensor says",
        )
    except SensorUnknownError as error:
        raise UserError(_without_size(error, root, [*train.recordings, *test.recordings])) from None


def _read(recording: Recording, *, sensor: Size | None) -> Events:
    return read_recording(recording.path, sensor=sensor)


def _listed(root: Path, split: str | None) -> tuple[list[str], Labelled, Labelled]:
    """The classes, and the recordings to train and to test on."""
    test_name = next((name for name in TEST_NAMES if (root / name).is_dir()), None)
    if split is not None:
        if split != FIFTH:
            raise UserError(f"split={split!r}: for a folder of recordings, write {FIFTH}, or null for train/ and test/")
        if (root / "train").is_dir() and test_name is not None:
            raise UserError(f"split={split!r}: {root} has train/ and {test_name}/, which are the split; omit split")
        classes = _classes(root)
        both = labelled(root, classes)
        check_flat(root, classes, (recording.path for recording in both.recordings))
        return classes, *split_by_fifths(both)
    if test_name is None or not (root / "train").is_dir():
        raise FileNotFoundError(_wrong_layout(root))
    if test_name != "val" and (root / "val").is_dir():
        log.warning("%s is not used: a part of train is set aside for validation", root / "val")
    classes = _classes(root / "train")
    strangers = sorted(set(class_names(root / test_name)) - set(classes))
    if strangers:
        raise UserError(f"{root / test_name} has classes that {root / 'train'} lacks: {', '.join(strangers[:10])}")
    return classes, labelled(root / "train", classes), labelled(root / test_name, classes)


def check_flat(root: Path, classes: Sequence[str], recordings: Iterable[Path]) -> None:
    """Check that the folders in `root` are classes, as `split="fifth"` assumes; warn if classes have folders in them.

    Args:
        classes: the names of the folders.
        recordings: the files in them.

    Raises:
        UserError: the folders are parts of a split, like N-MNIST's `Train` and `Test`, or there is a single folder with
            folders in it.
    """
    nested = next((path for path in recordings if len(path.relative_to(root).parts) > 2), None)
    if all(name.casefold() in SPLIT_NAMES for name in classes):
        found = f"{', '.join(classes)}, which {'is a part' if len(classes) == 1 else 'are parts'} of a split"
    elif nested is None:
        return
    elif len(classes) > 1:
        log.warning("%s: the classes are %s; %s is in one of them", root, ", ".join(classes[:10]), nested.parent)
        return
    else:
        found = f"a single folder with folders of recordings in it, for example {nested.parent.relative_to(root)}"
    raise UserError(
        f"{root.absolute()} has {found}, but data.split={FIFTH} needs a folder for each class with its recordings "
        "directly in it. If there are Train and Test, rename them train and test and leave data.split out, or write "
        "data.kind=nmnist if it is N-MNIST; otherwise set data.root to the folder that contains the class folders"
    )


def _classes(folder: Path) -> list[str]:
    classes = class_names(folder) if folder.is_dir() else []
    if not classes:
        raise FileNotFoundError(f"{folder.absolute()} has no class folders")
    return classes


def _wrong_layout(root: Path) -> str:
    found = class_names(root) if root.is_dir() else []
    there = f"it has {', '.join(found[:10])}" if found else "it has no folders" if root.is_dir() else "it is not there"
    message = (
        f"{root.absolute()} has no folder {'test (or val)' if 'train' in found else 'train'}; {there}. It needs "
        "train/ and test/ (or val/) with a folder for each class"
    )
    if {name.casefold() for name in found} & {*SPLIT_NAMES} - {*found}:
        return f"{message}: rename them, or write data.kind=nmnist if it is N-MNIST"
    if len(found) < 2 or {*found} & {*SPLIT_NAMES}:
        return message
    return f"{message}. If these are the classes, data.split={FIFTH} sets a fifth of each aside for testing"


def _without_size(error: SensorUnknownError, root: Path, recordings: Sequence[Recording]) -> str:
    """Say what to set, and how far the events of some recordings reach, which also reveals a corrupt address."""
    reaches: dict[Path, Size] = {}
    for recording in recordings[:: -(-len(recordings) // NUM_LOOKED_AT)]:
        try:
            read_recording(recording.path)
        except SensorUnknownError as unknown:
            reaches[recording.path] = unknown.reach
        except (UserError, OSError):
            pass
    if not reaches:
        return str(error)
    farthest = [max(reaches, key=lambda path, side=side: reaches[path][side]) for side in (0, 1)]
    height, width = (sorted(reach[side] for reach in reaches.values())[(len(reaches) - 1) // 2] for side in (0, 1))
    size = (reaches[farthest[0]][0], reaches[farthest[1]][1])
    files = " and ".join(str(path.relative_to(root)) for path in dict.fromkeys(farthest))
    return (
        f"{error.name}: does not say how large the sensor is, and no setting does: write -s data.sensor=[HEIGHT,WIDTH] "
        f"on the command line, or sensor=(HEIGHT, WIDTH) in Python. In {quantity(len(reaches), 'such recording')} "
        f"examined, events reach {shown(size)} (in {files}), and in half of them at most {shown((height, width))}"
    )
