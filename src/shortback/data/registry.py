"""Data sources by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from shortback.choices import DataKind, EventKind, nearest
from shortback.data import events
from shortback.data.bundled import load_bundled
from shortback.data.events import Frames
from shortback.data.image_folder import load_image_folder
from shortback.data.images import ImageData
from shortback.data.shards import load_shards
from shortback.data.vision import data_root, load_cifar, load_fashion_mnist
from shortback.errors import UserError

DATA_KINDS: tuple[DataKind, ...] = get_args(DataKind)
_SHIPPED = ("bundled", "simulated_events")
_RECORDED = tuple(kind for kind in get_args(EventKind) if kind not in _SHIPPED)

# Settings that apply to some kinds only: those kinds, and their description in error messages.
_APPLIES_TO: dict[str, tuple[tuple[str, ...], str]] = {
    "url": (("shards",), "shards"),
    "cache_gb": (("shards",), "shards"),
    "cache_dir": (("image_folder", "shards", *get_args(EventKind)), "image_folder, shards and recordings of events"),
    "download": (("fashion_mnist", "cifar10", "cifar100"), "cifar10 and the like"),
    "skip_bad": (("image_folder", *_RECORDED), "image_folder and recordings of events on disk"),
    "split": (("cifar10_dvs", "event_folder"), "recordings without an official split (cifar10_dvs, event_folder)"),
    "sensor": (("event_folder",), "event_folder, whose files may not give it"),
    "root": (tuple(kind for kind in DATA_KINDS if kind not in _SHIPPED), "data that do not come with the package"),
}


def load_data(
    kind: str,
    *,
    root: str | Path | None = None,
    download: bool = False,
    skip_bad: bool = False,
    image_size: int | None = None,
    url: str | None = None,
    cache_dir: Path | None = None,
    cache_gb: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    frames: Frames | None = None,
    split: str | None = None,
    sensor: tuple[int, int] | None = None,
) -> ImageData:
    """Load and validate a data source.

    Args:
        kind: one of `DATA_KINDS`.
        root: folder of the data; not for `bundled` and `simulated_events`, required for `image_folder` and
            `event_folder`; `shards` need either `root` or `url`; the others default to `data_root` of
            `shortback.data.vision`.
        download: download missing files (`fashion_mnist`, `cifar10`, `cifar100`).
        skip_bad: skip damaged files of an `image_folder` or of event recordings instead of raising.
        image_size: side, in pixels, of the images that the network sees, if not their stored size.
        url: URL of a folder of `shards` on a web server.
        cache_dir: where an `image_folder` or event recordings keep their cache, if not in `root`; where copies of
            `shards` behind a `url` are stored.
        cache_gb: limit on the total size of these copies, in 10^9 bytes.
        mean: mean of each channel, in units of [0, 1], if not the training images' own.
        std: standard deviation of each channel, in units of [0, 1], if not the training images' own.
        frames: how to turn recordings of events into frames; required for all event data, not for images.
        split: split of `cifar10_dvs` (see `load_cifar10_dvs`), or of an `event_folder` without `train` and `test`.
        sensor: height and width, in pixels, of recordings of an `event_folder` whose files do not give them.

    Raises:
        ValueError: if the kind is unknown, a setting does not apply to it, or the data is damaged or inconsistent.
        FileNotFoundError: if the data is missing; the message shows the expected layout.
        OSError: if a download fails or a cache cannot be written.
    """
    if kind not in DATA_KINDS:
        near = nearest(kind, DATA_KINDS)
        raise UserError(f"there is no data of kind {kind!r}; the nearest are {near}; known: {', '.join(DATA_KINDS)}")
    given = {"url": url, "cache_gb": cache_gb, "cache_dir": cache_dir, "download": download, "skip_bad": skip_bad}
    _refuse_inapplicable(kind, {**given, "split": split, "root": root, "sensor": sensor})
    if kind in get_args(EventKind):
        _refuse(kind, image_size=image_size, mean=mean, std=std)
        if frames is None:
            raise UserError(f"data of kind {kind!r} needs frames: how many, and of which size")
        if kind == "event_folder" and root is None:
            raise UserError("data of kind 'event_folder' needs root, the folder that holds train/ and test/")
        settings = {"frames": frames, "cache_dir": cache_dir, "skip_bad": skip_bad, "split": split, "sensor": sensor}
        return _load_events(kind, data_root(root), settings)
    if frames is not None:
        raise UserError(f"frames are made of events, and data of kind {kind!r} are images; leave frames out")
    if kind == "shards":
        data = load_shards(None if root is None else Path(root), url=url, cache_dir=cache_dir, cache_gb=cache_gb)
    else:
        data = _load_images(kind, root, download=download, skip_bad=skip_bad, cache_dir=cache_dir)
    return dataclasses.replace(
        data,
        image_size=data.image_size if image_size is None else image_size,
        mean=data.mean if mean is None else tuple(mean),
        std=data.std if std is None else tuple(std),
    )


def _load_images(
    kind: str, root: str | Path | None, *, download: bool, skip_bad: bool, cache_dir: Path | None
) -> ImageData:
    if kind == "bundled":
        return load_bundled()
    if kind == "fashion_mnist":
        return load_fashion_mnist(root=root, download=download)
    if kind in ("cifar10", "cifar100"):
        return load_cifar(kind, root=root, download=download)
    if root is None:
        raise UserError("data of kind 'image_folder' needs root, the folder that holds train/ and test/")
    return load_image_folder(root, skip_bad=skip_bad, cache_dir=cache_dir)


def _load_events(kind: str, root: Path, settings: Mapping[str, Any]) -> ImageData:
    known = {name: settings[name] for name in ("frames", "cache_dir")}
    if kind == "simulated_events":
        return events.load_simulated_events(**known)
    known["skip_bad"] = settings["skip_bad"]
    if kind == "cifar10_dvs":
        return events.load_cifar10_dvs(root, split=settings["split"] or "last100", **known)
    if kind == "event_folder":
        return events.load_event_folder(root, split=settings["split"], sensor=settings["sensor"], **known)
    loaders: dict[str, Callable[..., ImageData]] = {
        "dvs_gesture": events.load_dvs_gesture,
        "nmnist": events.load_nmnist,
        "ncaltech101": events.load_ncaltech101,
    }
    return loaders[kind](root, **known)


def _refuse_inapplicable(kind: str, given: Mapping[str, object]) -> None:
    """Raise if a setting is given that this kind would silently ignore."""
    for name, value in given.items():
        kinds, meant = _APPLIES_TO[name]
        if value is not None and value is not False and kind not in kinds:
            shown = str(value) if isinstance(value, Path) else repr(value)
            off = "false" if value is True else "null"  # overrides a value inherited from the recipe that is extended
            raise UserError(f"{name}={shown} is for {meant}, not for {kind}; leave it out, or write {name}={off}")


def _refuse(kind: str, **settings: object) -> None:
    """Raise if a setting of images is given for events."""
    for name, value in settings.items():
        if value is not None:
            raise UserError(f"{name}={value!r} is for images, but data of kind {kind!r} are events, made into frames")
