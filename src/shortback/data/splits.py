"""Class-balanced subsets of a split, determined by a seed."""

import torch
from torch import Tensor

from shortback.data.images import ImageSet, Subset
from shortback.errors import UserError


def split_validation(train: ImageSet, *, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Set aside the same share of every class of the training images for validation.

    Of a class with n images, `round(fraction * n)`, drawn by `seed`, are set aside. Both parts keep the order of
    `train`.

    Args:
        train: the images to split.
        fraction: share to set aside, in [0, 1); with 0, the validation part is empty.
        seed: seed of the draw.

    Returns:
        The images to train on, and those to validate on.

    Raises:
        ValueError: if `fraction` is out of range, or (unless it is 0) if one of the parts would have no image of a
            class.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the validation fraction must be in [0, 1), not {fraction}")
    sizes = torch.bincount(train.labels)
    quotas = (fraction * sizes.double()).round().long()
    for label, (size, quota) in enumerate(zip(sizes.tolist(), quotas.tolist(), strict=True)):
        if fraction and size and not 0 < quota < size:
            raise UserError(
                f"a validation fraction of {fraction} sets {quota} of the {size} samples of class {label} "
                f"aside; both parts need at least one: choose another fraction, or 0 for no validation"
            )
    held_out = _rank_within_class(train.labels, seed=seed) < quotas[train.labels]
    return Subset(train, _where(~held_out)), Subset(train, _where(held_out))


def limit_images(images: ImageSet, *, count: int, seed: int) -> ImageSet:
    """Select `count` images, as balanced over the classes as their sizes allow.

    A larger subset drawn with the same seed contains the smaller one. The order of `images` is kept.

    Args:
        images: the images to select from.
        count: number of images to select.
        seed: seed of the draw.

    Raises:
        ValueError: if `count` is not in 1 ... len(images).
    """
    if not 1 <= count <= len(images):
        raise UserError(f"the number of images must be in 1 ... {len(images)} (all images), not {count}")
    # Take one image of every class, then a second of every class, and so on; skip classes that run out.
    rounds = _rank_within_class(images.labels, seed=seed)
    return Subset(images, rounds.argsort(stable=True)[:count].sort().values)


def _rank_within_class(labels: Tensor, *, seed: int) -> Tensor:
    """Number the images of each class 0, 1, 2 ... in an order drawn by `seed`: int64 [n] -> int64 [n]."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = torch.bincount(labels)
    first = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(labels)
    ranks[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return ranks


def _where(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)
