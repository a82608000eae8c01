"""Batch sizes that the training images can fill."""

from __future__ import annotations

from shortback.errors import UserError


def fitting_batch_size(num_images: int) -> int:
    """The largest power of two that fits four times into an epoch, but at least 2."""
    return max(2, 1 << max(1, num_images // 4).bit_length() - 1)


def check_batch_size(batch_size: int, *, num_images: int) -> None:
    """Check that an epoch has at least one full batch.

    Raises:
        ValueError: it has none; the message suggests a batch size.
    """
    if batch_size > num_images:
        raise UserError(
            f"a batch of {batch_size} is more than the {num_images} images to train on: choose a smaller one, "
            f"-s train.batch_size={fitting_batch_size(num_images)}"
        )
