"""Cheap augmentations, applied to whole batches.

torchvision's `v2.RandomCrop` and `v2.RandomHorizontalFlip` spend some 60 microseconds per sample on
dispatch, which is nearly all of their time for a 32 x 32 image. The functions here process a batch of 128 in
the time torchvision takes for six samples. Random values are arguments, so every function is pure; none
modifies its input.
"""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.nn import functional as F


def pad_and_crop(images: Tensor, *, padding: int, offsets: Tensor) -> Tensor:
    """Pad every side with `padding` black pixels and crop back to the original size.

    Args:
        images: uint8 [N, C, H, W].
        padding: in pixels.
        offsets: int64 [N, 2], top and left of each crop in the padded image, in 0 ... 2 * padding.

    Returns:
        uint8 [N, C, H, W].
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, [padding] * 4).numpy()
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))  # [N, C, top, left, H, W], a view
    top, left = offsets.numpy().T
    return torch.from_numpy(windows[np.arange(len(images)), :, top, left])


def flip(images: Tensor, *, chosen: Tensor) -> Tensor:
    """Mirror the chosen images left to right.

    Args:
        images: uint8 [N, C, H, W].
        chosen: bool [N].

    Returns:
        uint8 [N, C, H, W].
    """
    rows = chosen.nonzero().squeeze(1)
    return images.index_copy(0, rows, images.index_select(0, rows).flip(-1))


def roll(images: Tensor, *, offsets: Tensor) -> Tensor:
    """Shift every image cyclically: pixels that leave on one side re-enter on the other.

    Args:
        images: uint8 [N, C, H, W].
        offsets: int64 [N, 2], pixels down and to the right.

    Returns:
        uint8 [N, C, H, W].
    """
    num, channels, height, width = images.shape
    rows = (torch.arange(height) - offsets[:, :1]) % height
    columns = (torch.arange(width) - offsets[:, 1:]) % width
    source = (rows[:, :, None] * width + columns[:, None, :]).view(num, 1, -1)
    return images.flatten(2).gather(2, source.expand(-1, channels, -1)).view_as(images)


def turn_and_shear(images: Tensor, *, angles: Tensor, shears: Tensor) -> Tensor:
    r"""Rotate every image about its centre, then shear it along its rows, with nearest-neighbour sampling.

    In coordinates $(r, c)$ relative to the centre, the output at $(r, c)$ is the input at
    $R(-\alpha)\,(r, c - r \tan \sigma)$, or black where that point lies outside the image.

    Args:
        images: uint8 [N, C, H, W].
        angles: $\alpha$, float64 [N], radians, counterclockwise.
        shears: $\sigma$, float64 [N], radians.

    Returns:
        uint8 [N, C, H, W].
    """
    num, channels, height, width = images.shape
    middle = torch.tensor([(height - 1) / 2, (width - 1) / 2], dtype=torch.float64)
    r = (torch.arange(height) - middle[0])[:, None].expand(height, width).flatten()
    c = (torch.arange(width) - middle[1])[None, :].expand(height, width).flatten() - shears.tan()[:, None] * r
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    row = (cos * r + sin * c + middle[0]).round().long()
    column = (cos * c - sin * r + middle[1]).round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    source = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).view(num, 1, -1)
    moved = images.flatten(2).gather(2, source.expand(-1, channels, -1))
    return moved.masked_fill_(~inside[:, None], 0).view_as(images)


def cutout(images: Tensor, *, side: int, centres: Tensor) -> Tensor:
    """Blacken a square in every image; the part beyond the border is clipped.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017.

    Args:
        images: uint8 [N, C, H, W].
        side: side of the square, in pixels.
        centres: int64 [N, 2], row and column; the square begins `side // 2` pixels above and left of the centre.

    Returns:
        uint8 [N, C, H, W].
    """
    height, width = images.shape[-2:]
    begin = centres - side // 2
    inside_rows = _between(torch.arange(height), begin[:, :1], side)
    inside_columns = _between(torch.arange(width), begin[:, 1:], side)
    return images.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], 0)


def _between(positions: Tensor, begin: Tensor, length: int) -> Tensor:
    return (positions >= begin) & (positions < begin + length)
