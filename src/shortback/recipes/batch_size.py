"""A batch that the images there are can fill."""

from __future__ import annotations

from shortback.errors import UserError


def fitting_batch_size(num_images: int) -> int:
    """A power of two of which four or more make an epoch; 2 where there are too few for that."""
    return max(2, 1 << max(1, num_images // 4).bit_length() - 1)


def check_batch_size(batch_size: int, *, num_images: int) -> None:
    """See that an epoch has one whole batch.

    Raises:
        ValueError: it has not, and which batch fits.
    """
    if batch_size > num_images:
        raise UserError(
            f"a batch of {batch_size} is more than the {num_images} images to train on: choose a smaller one, "
            f"-s train.batch_size={fitting_batch_size(num_images)}"
        )
