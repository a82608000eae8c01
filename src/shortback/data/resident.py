"""Keeps small images on the device and augments them there, because a GPU trains faster than CPU cores crop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from shortback import ops
from shortback.data.images import ArrayImages, ImageSet, Subset
from shortback.data.loader import BatchLoader
from shortback.data.transforms import Draws, EvalTransform, TrainTransform, normalize
from shortback.errors import UserError
from shortback.ops import kernels

MOST_BYTES = 2 * 10**9  # largest split kept on a device


def why_not_resident(images: ImageSet, transform: object, *, num_steps: int | None) -> str | None:
    """Return the reason why batches cannot be made on a device; None if they can."""
    array = _array_of(images)
    if num_steps is not None:
        return "sequences of frames are made on the CPU"
    if array is None:
        return "images are decoded when they are read"
    taken = len(images) * array[:1].numel()
    if taken > MOST_BYTES:
        return f"the images take {taken / 1e9:.1f} GB, and more than {MOST_BYTES / 1e9:.0f} GB are not kept on a device"
    if isinstance(transform, TrainTransform):
        if other := transform.augmentation.first_other_augmentation():
            return f"{other} runs on the CPU"
        resize = transform.image_size
    elif isinstance(transform, EvalTransform):
        resize = transform.resize
    else:
        return None if transform is None else f"{type(transform).__name__} runs on the CPU"
    size, (height, width) = transform.image_size, array.shape[-2:]
    done = [f"resized to {resize}"] if min(height, width) != resize else []
    done += [f"cropped to {size}"] if height != width or resize != size else []
    return f"images of {height} x {width} are {' and '.join(done)} on the CPU" if done else None


class ResidentLoader(BatchLoader):
    """A `BatchLoader` that keeps its images on a device, where one kernel crops, flips, cuts out and normalises them.

    Its batches lie on that device and equal those of a `BatchLoader` bit for bit, except that mixed batches may differ
    in the last bits. There are no workers and no page-locked memory: `num_workers` and `pin_memory` are ignored.

    Args:
        images: the split, held in one tensor.
        device: device of the images and the batches.
        settings: other arguments of `BatchLoader`.

    Raises:
        ValueError: if `why_not_resident` gives a reason against this split or transform, or as in `BatchLoader`.
    """

    def __init__(self, images: ImageSet, *, device: torch.device, **settings: Any) -> None:
        super().__init__(images, **{**settings, "num_workers": 0, "pin_memory": False})
        reason = why_not_resident(images, self.transform, num_steps=self.num_steps)
        if reason is not None:
            raise UserError(f"these batches cannot be made on the device: {reason}")
        array = _array_of(images)
        assert array is not None
        self.device = device
        self.shape = (array.shape[1], array.shape[2], array.shape[3])
        places = _places_of(images)  # copy only this subset: several loaders may share the tensor
        self.pixels = (array if places is None else array.index_select(0, places)).reshape(-1).to(device)
        # Normalised values of every byte in every channel: a look-up gives the same bits on any device.
        channels = array.shape[1]
        every_byte = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, channels, 1, 1)
        table = normalize(every_byte, mean=self.mean, std=self.std)
        self.table = table.flatten(1).T.reshape(-1).to(device)
        self.is_compiled = ops.resolve("auto", device.type) == "compiled"

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(epoch)
        for batch in range(start, len(self)):
            positions = self._positions(batch)
            indices = order[positions]
            images = self._cut(indices, self._seeds(epoch, positions))
            labels = self.images.labels[indices].to(self.device, non_blocking=True)
            yield (images, labels) if self.mixing is None else self._mixed(images, labels, epoch=epoch, batch=batch)

    def _cut(self, indices: Tensor, seeds: Tensor) -> Tensor:
        draws, padding, side = Draws(None, None, None), 0, 0
        if isinstance(self.transform, TrainTransform):
            draws = self.transform.draws(seeds)
            padding, side = self.transform.augmentation.crop_padding, self.transform.augmentation.cutout
        top, left = _columns(draws.offsets)
        row, column = _columns(draws.centres)
        tensors = [None if each is None else each.to(self.device) for each in (top, left, draws.flipped, row, column)]
        arguments = (self.pixels, self.table, indices.to(self.device), *tensors)
        constants = (self.shape, padding, side)
        if not self.is_compiled:
            return _gather_batch(*constants, *arguments).permute(0, 3, 1, 2)
        return kernels.run(_gather_batch, constants, *arguments).permute(0, 3, 1, 2)


def _gather_batch(
    shape: tuple[int, int, int],
    padding: int,
    side: int,
    pixels: Tensor,
    table: Tensor,
    places: Tensor,
    top: Tensor | None,
    left: Tensor | None,
    flipped: Tensor | None,
    centre_row: Tensor | None,
    centre_column: Tensor | None,
) -> Tensor:
    """Gather the augmented, normalised batch, float32 `[n, H, W, C]`: each output pixel looks up its source pixel.

    Args:
        pixels: uint8, the pixels of all images, concatenated.
        table: float32, 256 normalised values per channel.
        places: `[n]`, like all following arguments; the numbers of the batch's images in `pixels`.
    """
    channels, height, width = shape
    c = torch.arange(channels, device=pixels.device)
    row = torch.arange(height, device=pixels.device).view(1, -1, 1, 1)
    column = torch.arange(width, device=pixels.device).view(1, 1, -1, 1)
    black = torch.zeros((), dtype=torch.bool, device=pixels.device)
    if centre_row is not None and centre_column is not None:
        begin_row, begin_column = (_spread(centre) - side // 2 for centre in (centre_row, centre_column))
        black = (row >= begin_row) & (row < begin_row + side)
        black = black & (column >= begin_column) & (column < begin_column + side)
    if flipped is not None:
        column = torch.where(_spread(flipped), width - 1 - column, column)
    if top is not None and left is not None:
        row, column = row + _spread(top) - padding, column + _spread(left) - padding
        black = black | (row < 0) | (row >= height) | (column < 0) | (column >= width)
        row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    source = ((_spread(places) * channels + c) * height + row) * width + column
    value = torch.where(black, 0, pixels[source].long())
    return table[c * 256 + value]


def _spread(of_images: Tensor) -> Tensor:
    return of_images.view(-1, 1, 1, 1)


def _columns(pairs: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if pairs is None else (pairs[:, 0].contiguous(), pairs[:, 1].contiguous())


def _array_of(images: ImageSet) -> Tensor | None:
    """Return the tensor that holds a split's images, uint8 `[len, C, H, W]`; None if there is no such tensor."""
    if isinstance(images, Subset):
        return _array_of(images.source)
    return images.images if isinstance(images, ArrayImages) else None


def _places_of(images: ImageSet) -> Tensor | None:
    """Return the index of each image in that tensor; None if the split is the whole tensor, in order."""
    if not isinstance(images, Subset):
        return None
    places = _places_of(images.source)
    return images.indices if places is None else places[images.indices]
