"""Batch sizes that the training images can fill."""

from __future__ import annotations

from shortback.errors import UserError
from shortback.words import quantity


def fitting_batch_size(num_images: int) -> int:
    """The largest power of two that fits four times into an epoch, but at least 2."""
    return max(2, 1 << max(1, num_images // 4).bit_length() - 1)


def check_batch_size(batch_size: int, *, num_images: int) -> None:
    """Check that an epoch has at least one full batch.

    Raises:
        ValueError: it has none; the message suggests a batch size.
    """
    if batch_size > num_images:
        fits = f"choose a smaller one, -s train.batch_size={fitting_batch_size(num_images)}"
        raise UserError(
            f"a batch of {batch_size} is more than the {quantity(num_images, 'image')} to train on: "
            f"{fits if num_images > 1 else 'give more images'}"
        )
