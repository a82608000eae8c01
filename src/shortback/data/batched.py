"""The three cheap augmentations, on whole batches.

torchvision's `v2.RandomCrop` and `v2.RandomHorizontalFlip` spend some 60 microseconds a sample on
dispatch, which for a 32 x 32 image is nearly all of it. These do the same to a batch of 128 in the time of
six samples. What is random is an argument, so each is a pure function, and none changes its input.
"""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.nn import functional as F


def pad_and_crop(images: Tensor, *, padding: int, offsets: Tensor) -> Tensor:
    """Pad every side with `padding` black pixels and cut the original size out again.

    Args:
        images: uint8 [N, C, H, W].
        padding: in pixels.
        offsets: int64 [N, 2], the top and left of each window in the padded image, in 0 ... 2 * padding.

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


def cutout(images: Tensor, *, side: int, centres: Tensor) -> Tensor:
    """Blacken a square in every image; what reaches over the border is cut off.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017.

    Args:
        images: uint8 [N, C, H, W].
        side: of the square, in pixels.
        centres: int64 [N, 2], row and column; the square begins `side // 2` pixels above and left of it.

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
