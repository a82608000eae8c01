"""What a network is trained on: a picture of samples of a data source, as they are and augmented."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from shortback.data import ImageData, ImageSet, TrainTransform
from shortback.data.images import file_of, read_images
from shortback.data.seeding import derive_seeds
from shortback.data.transforms import EvalTransform

ON, OFF = np.array([0.85, 0.15, 0.15]), np.array([0.10, 0.35, 0.80])
NUM_AUGMENTED = 5  # augmented versions of a static image


@dataclass(frozen=True)
class Row:
    """One line of the picture.

    Attributes:
        title: text above the line.
        pictures: float64 `[H, W, 3]`, from left to right.
    """

    title: str
    pictures: list[np.ndarray]


def draw_samples(
    source: ImageData, images: ImageSet, *, count: int, transform: TrainTransform, seed: int = 0
) -> Figure:
    """Draw some samples of a split, each first as it is, then augmented.

    A static image has five augmented versions beside it. A sequence of frames is a line of its own, ON in red and OFF
    in blue, with its augmented version in the line below. Versions that augmentation left unchanged are not drawn.
    Classes take turns.

    Args:
        source: the data source of the split.
        images: the split.
        count: number of samples.
        transform: the augmentation.
        seed: seed of the choice of samples and of the augmentation.
    """
    rows: list[Row] = []
    for number, index in enumerate(_drawn(images, count, seed=seed)):
        image = read_images(images, torch.tensor([index]))
        name = file_of(images, index) or f"number {index}"
        rows += _rows(source, image, f"{source.classes[int(images.labels[index])]}   {name}", transform, seed + number)
    return _draw(rows)


def _drawn(images: ImageSet, count: int, *, seed: int) -> list[int]:
    """One sample of every class, then a second of every class, and so on."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    turns: dict[int, int] = {}
    numbered = []
    for index in order:
        label = int(images.labels[index])
        turns[label] = turns.get(label, 0) + 1
        numbered.append((turns[label], label, index))
    return [index for *_, index in sorted(numbered)[:count]]


def _rows(
    source: ImageData, image: Tensor | list[Tensor], title: str, transform: TrainTransform, seed: int
) -> list[Row]:
    num_steps = source.num_steps
    seeds = derive_seeds(seed, torch.arange(NUM_AUGMENTED if num_steps is None else 1))
    many = [image[0]] * len(seeds) if isinstance(image, list) else image.expand(len(seeds), -1, -1, -1)
    augmented = transform.batch(many, seeds=seeds)
    if num_steps is None:
        plain = EvalTransform(image_size=transform.image_size).batch(many[:1])[0]
        changed = [x for x in augmented if not torch.equal(x, plain)]
        return [Row(title + "   and augmented" * bool(changed), [_coloured(x) for x in (image[0], *changed)])]
    frames = [x.unflatten(0, (num_steps, -1)) for x in (image[0], augmented[0])]
    lines = [Row(title, [_events(x) for x in frames[0]])]
    if not torch.equal(*frames):
        lines.append(Row("augmented", [_events(x) for x in frames[1]]))
    return lines


def _coloured(image: Tensor) -> np.ndarray:
    """An image, uint8 `[C, H, W]`, as a picture."""
    pixels = image.permute(1, 2, 0).numpy() / 255
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _events(frame: Tensor) -> np.ndarray:
    """A frame, uint8 `[2, H, W]` with OFF and ON, on white; the highest hundredth of its counts is darkest."""
    counts = frame.numpy().astype(float)
    seen = counts[counts > 0]
    strength = np.minimum(counts / (np.quantile(seen, 0.99) if len(seen) else 1.0), 1.0)[..., None]
    return np.clip(1 - strength[0] * (1 - OFF) - strength[1] * (1 - ON), 0, 1)


def _draw(rows: list[Row]) -> Figure:
    columns = max(len(row.pictures) for row in rows)
    figure = Figure(figsize=(min(1.3 * columns, 24), 1.55 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        title = os.fsencode(row.title).decode(errors="replace")  # file names may be any bytes
        line[0].set_title(title, loc="left", fontsize=8, parse_math=False)
        for place, picture in zip(line, row.pictures, strict=False):
            place.imshow(picture, interpolation="nearest")
        for place in line:
            place.set_axis_off()
            place.set_anchor("N")  # a wide image stays below its title when those beside it are taller
    return figure
