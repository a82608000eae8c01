"""The recipe sections on data: where the data lies, how it is read, and how training images are augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shortback.choices import AutoAugment, DataKind, FramesBy, FrameValues, Resize
from shortback.recipes.fields import Count, Fraction, NonNegative, Positive, Section


class AugmentConfig(Section):
    """Augmentation of the training images, in the order of `shortback.data.Augmentation`; none by default."""

    crop_padding: Annotated[int, Field(ge=0)] = 0
    """Pad each side by this many black pixels, then crop back to the image size at a random position."""
    resized_crop: bool = False
    """Crop a random 8 to 100 % of the area and resize it, as is usual for ImageNet."""
    flip: bool = False
    """Mirror left to right with probability 1/2."""
    roll: Annotated[int, Field(ge=0)] = 0
    """Shift by up to this many pixels either way, wrapping around at the borders."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotate by up to this many degrees either way."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Shear along the rows by up to this many degrees either way."""
    auto_augment: AutoAugment | None = None
    """AutoAugment, with the policy found for this data set."""
    rand_augment: Annotated[int, Field(ge=0, le=30)] | None = None
    """RandAugment with two operations of this magnitude."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Blacken a square with sides of this many pixels, at a random position."""
    mixup: NonNegative = 0.0
    """Alpha of the Beta distribution of mixup; 0 for no mixup."""
    cutmix: NonNegative = 0.0
    """Alpha of the Beta distribution of CutMix; 0 for no CutMix."""


class FramesConfig(Section):
    """The frames that recordings of events become, `model.num_steps` of them."""

    size: Count = 48
    """Side of the square frames, in pixels."""
    by: FramesBy = "count"
    """Whether frames hold equally many events (`count`) or span equally much time (`duration`)."""
    resize: Resize = "sum"
    """Whether a pixel gets the events of all sensor pixels that it covers (`sum`), or of one of them (`nearest`)."""
    values: FrameValues = "count"
    """Whether a pixel holds the number of its events, up to 255 (`count`), or 1 if there were any (`binary`)."""
    keep_aspect: bool = False
    """Whether to keep the sensor's aspect ratio and leave the rest of the frame empty."""


class DataConfig(Section):
    """The data to train on."""

    kind: DataKind = "bundled"
    """Data set or file format; `bundled` and `simulated_events` come with the package."""
    root: Path | None = None
    """Folder of the data, needed for your own; `null` for the environment variable SHORTBACK_DATA, or else `data`."""
    url: str | None = None
    """Address of a folder of shards on a web server, instead of `root`."""
    cache_dir: Path | None = None
    """Where to cache images, events or copies of shards; `null` for inside `root` (shards: the user's cache)."""
    cache_gb: Positive | None = None
    """Disk space that copies of shards may take, in 10^9 bytes; `null` for no limit."""
    download: bool = False
    """Whether to download missing files, for Fashion-MNIST and CIFAR."""
    skip_bad: bool = False
    """Whether to leave out damaged images of a folder, or recordings, instead of ending the run."""
    image_size: Count | None = None
    """Side of the images in the network, in pixels; `null` for their own (if they differ, the median, at most 224)."""
    frames: FramesConfig | None = None
    split: str | None = None
    """Split of recordings that have no official one: a named rule, or (CIFAR10-DVS) a text file of test recordings."""
    sensor: tuple[Count, Count] | None = None
    """Height and width of the sensor, in pixels, for recordings whose files do not give them."""
    train_images: Count | None = None
    """Number of training images to use, with those set aside, drawn by `seed`; `null` for all."""
    validation_fraction: Fraction = 0.1
    """Fraction of the training images set aside to choose the best weights; 0 for none."""
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Worker processes that read and augment images; 0 to do so in the training process, as `auto` does on the CPU."""
    on_device: bool | Literal["auto"] = "auto"
    """Whether to keep and augment images on the GPU; `auto` if they fit and their augmentation can run there."""
    augment: AugmentConfig = AugmentConfig()
