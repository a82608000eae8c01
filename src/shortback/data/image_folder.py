"""Loads images from a training and a test folder, each with one subfolder per class."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shortback.data.cache_folder import cache_folders
from shortback.data.folder_index import is_folder, list_split, visible
from shortback.data.image_cache import Listing, Survey, survey_folder
from shortback.data.image_files import FileImages, is_rotated
from shortback.data.images import ArrayImages, ImageData, ImageSet, Subset
from shortback.errors import UserError

_TEST_NAMES = ("test", "val")
_IMAGENET_SIDE = 224
_NUM_NAMED = 10
_NUM_LOOKED_AT = 50
_INSTEAD = (
    "Replace or remove them, or leave them out: skip_bad=True in Python, -s data.skip_bad=true on the command line."
)
_logger = logging.getLogger(__name__)


def load_image_folder(root: str | Path, *, skip_bad: bool = False, cache_dir: Path | None = None) -> ImageData:
    """Load the images in `root/train/<class>/` and `root/test/<class>/` (or `val`), at any depth below the class.

    Labels number the subfolders of `train`, sorted by name. Every file is decoded once, which finds all damaged
    files before training; the result is cached (`shortback.data.image_cache`). If all images have the same
    size, at most 64 pixels a side, they are mapped from the cache, and mean and standard deviation are those of
    the training images. Other images are decoded on every read, with the mean and standard deviation of ImageNet.
    Hidden files are ignored; all others must be PNG, JPEG, WebP, BMP, GIF, TIFF or PPM. Pixels are used as
    stored: EXIF orientation is ignored.

    `image_size` is the shorter side of the images; if their sizes differ, the median shorter side, at most 224.

    Args:
        root: the folder.
        skip_bad: skip files that cannot be decoded, with a warning, instead of raising.
        cache_dir: where to keep the cache, if not in `root`.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if a class is empty, a test class has no training images, or files are damaged.
        OSError: if the cache cannot be written, or a file cannot be read for a reason other than its content.
    """
    root = Path(root).expanduser()
    test_name = _check_layout(root)
    classes = _class_names(root, "train")
    unknown = sorted(set(_class_names(root, test_name)) - set(classes))
    if unknown:
        raise UserError(
            f"{root / test_name} has classes that are missing from {root / 'train'}: {_shortened(unknown)}. "
            f"Add training images for them, or remove them; train has {_shortened(classes)}"
        )
    caches = cache_folders(root, cache_dir)
    train = list_split(root, "train", classes, caches=caches)
    test = list_split(root, test_name, classes, caches=caches)
    _warn_about_ignored(root, test_name, train.files)
    stats = np.concatenate([train.stats, test.stats])
    listing = Listing(files=train.files + test.files, stats=stats, num_train=len(train.files))
    survey, pixels = survey_folder(root, listing, cache_dir=cache_dir)
    if survey.bad:
        _report_bad(root, listing.files, survey, skip=skip_bad)
    is_good = torch.ones(len(listing.files), dtype=torch.bool)
    is_good[[index for index, _ in survey.bad]] = False
    splits: list[ImageSet] = []
    for name, split, begin in (("train", train, 0), (test_name, test, len(train.files))):
        part = slice(begin, begin + len(split.files))
        labels = torch.from_numpy(split.labels)
        _check_no_class_lost(root / name, classes, labels, is_good[part])
        images: ImageSet
        if pixels is None:
            images = FileImages(root, split.files, labels, channels=survey.channels)
        else:
            images = ArrayImages(pixels[part], labels, files=split.files)
        good = is_good[part].nonzero().squeeze(1)
        splits.append(images if len(good) == len(images) else Subset(images, good))
    return ImageData(
        name=root.resolve().name,
        classes=classes,
        train=splits[0],
        test=splits[1],
        mean=tuple(survey.mean),
        std=tuple(survey.std),
        in_channels=survey.channels,
        image_size=survey.shorter_side if survey.height else min(survey.shorter_side, _IMAGENET_SIDE),
    )


def _check_layout(root: Path) -> str:
    """Check that all folders exist; return the name of the test folder."""
    layout = (
        f"Expected:\n    {root / 'train'}/<class>/<image>\n    {root / 'test'}/<class>/<image>   (or "
        f"{root / 'val'})\nwith a folder for each class, and the same classes in both."
    )
    if not root.is_dir():
        raise FileNotFoundError(f"the data folder {root.absolute()} does not exist. {layout}")
    test_name = next((name for name in _TEST_NAMES if (root / name).is_dir()), None)
    if test_name is None or not (root / "train").is_dir():
        missing = "train" if not (root / "train").is_dir() else "test (or val)"
        found = sorted(entry.name for entry in visible(root))
        raise FileNotFoundError(
            f"the data folder {root.absolute()} has no folder {missing}; it has {_shortened(found)}. {layout}"
        )
    for name in ("train", test_name):
        if not _class_names(root, name):
            raise FileNotFoundError(f"{root / name} has no class folders. {layout}")
    return test_name


def _warn_about_ignored(root: Path, test_name: str, files: Sequence[str]) -> None:
    if test_name != "val" and (root / "val").is_dir():
        _logger.warning("%s is not used: a part of train is set aside for validation", root / "val")
    step = max(1, len(files) // _NUM_LOOKED_AT)
    rotated = [file for file in files[::step] if is_rotated(root / file)]
    if rotated:
        _logger.warning(
            "the EXIF orientation of %d of %d images checked, such as %s, asks for a rotation or reflection: it is "
            "ignored, as in torchvision",
            *(len(rotated), len(files[::step]), rotated[0]),
        )


def _class_names(root: Path, split: str) -> tuple[str, ...]:
    return tuple(entry.name for entry in visible(root / split) if is_folder(entry))


def _report_bad(root: Path, files: Sequence[str], survey: Survey, *, skip: bool) -> None:
    lines = [f"    {files[index]}: {reason}" for index, reason in survey.bad[:_NUM_NAMED]]
    if len(survey.bad) > _NUM_NAMED:
        lines.append(f"    ... and {len(survey.bad) - _NUM_NAMED} more")
    what = f"{len(survey.bad)} of the {len(files)} files in {root} are damaged or not images"
    if not skip:
        raise UserError(
            "\n".join(
                [
                    f"{what}:",
                    *lines,
                    _INSTEAD,
                ]
            )
        )
    _logger.warning("%s", "\n".join([f"{what}, and are skipped:", *lines]))


def _check_no_class_lost(folder: Path, classes: Sequence[str], labels: Tensor, is_good: Tensor) -> None:
    listed = torch.bincount(labels, minlength=len(classes)) > 0
    emptied = listed & (torch.bincount(labels[is_good], minlength=len(classes)) == 0)
    if emptied.any():
        names = [name for name, gone in zip(classes, emptied.tolist(), strict=True) if gone]
        raise UserError(f"no file of these classes of {folder} can be read: {_shortened(names)}")


def _shortened(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:_NUM_NAMED]) or "nothing"
    return listed if len(names) <= _NUM_NAMED else f"{listed} and {len(names) - _NUM_NAMED} more"
