"""The sections of a recipe on the data: where it lies, how it is read, and what is done to the training images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shortback.choices import AutoAugment, DataKind, FramesBy, FrameValues, Resize
from shortback.recipes.fields import Count, Fraction, NonNegative, Positive, Section


class AugmentConfig(Section):
    """What is done to the training images, in the order of `shortback.data.Augmentation`; nothing by default."""

    crop_padding: Annotated[int, Field(ge=0)] = 0
    """Pad by so many black pixels, and cut the size out at random."""
    resized_crop: bool = False
    """Cut out 8 to 100 % of the area and resize it, as is usual for ImageNet."""
    flip: bool = False
    """Mirror left to right, every second image."""
    roll: Annotated[int, Field(ge=0)] = 0
    """Shift by up to so many pixels, what leaves on one side coming in on the other."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Turn by up to so many degrees both ways."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Shear along the rows by up to so many degrees both ways."""
    auto_augment: AutoAugment | None = None
    """AutoAugment, with the policy found for one of these."""
    rand_augment: Annotated[int, Field(ge=0, le=30)] | None = None
    """RandAugment of two operations, with this magnitude."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Blacken a square of this side, in pixels."""
    mixup: NonNegative = 0.0
    """Alpha of the Beta distribution of mixup; 0 is off."""
    cutmix: NonNegative = 0.0
    """Alpha of the Beta distribution of CutMix; 0 is off."""


class FramesConfig(Section):
    """What recordings of events become; as many frames as `model.num_steps`."""

    size: Count = 48
    """Side of the square frames, in pixels."""
    by: FramesBy = "count"
    """Frames of equally many events, or of equally much time."""
    resize: Resize = "sum"
    """Events of all pixels of the sensor that one of a frame covers, or of the nearest alone."""
    values: FrameValues = "count"
    """How many events there were, or whether there was one."""
    keep_aspect: bool = False
    """Whether the sides of the sensor keep their proportion, and the rest of the frame is empty."""


class DataConfig(Section):
    """What to train on."""

    kind: DataKind = "bundled"
    """Which data; `bundled` and `simulated_events` come with the package."""
    root: Path | None = None
    """Folder of the data; `null` for that in SHORTBACK_DATA, or `data`."""
    url: str | None = None
    """Of a folder of shards on a web server, instead of `root`."""
    cache_dir: Path | None = None
    """Where the cache of a folder of images or events, or copies of shards, go; `null` for beside the data."""
    cache_gb: Positive | None = None
    """What copies of shards may take, in 10^9 bytes."""
    download: bool = False
    """Whether to fetch what is missing, of Fashion-MNIST and CIFAR."""
    skip_bad: bool = False
    """Whether damaged files of a folder are left out, instead of ending the run."""
    image_size: Count | None = None
    """Side of the images that the network sees, in pixels; `null` for theirs."""
    frames: FramesConfig | None = None
    split: str | None = None
    """How recordings without an official split are split: a word, or a text file of those to test on."""
    sensor: tuple[Count, Count] | None = None
    """Height and width, in pixels, of recordings whose files do not say them."""
    train_images: Count | None = None
    """How many training images are used, the same by seed; `null` for all."""
    validation_fraction: Fraction = 0.1
    """Part of the training images set aside to choose the best weights; 0 for none."""
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that read and augment images; 0 for the one that trains."""
    on_device: bool | Literal["auto"] = "auto"
    """Whether images lie, and are augmented, on the GPU; `auto` where they fit and what is done to them can be."""
    augment: AugmentConfig = AugmentConfig()
