"""Transforms from stored images to network inputs: augmentation, resizing, normalisation and mixing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, v2
from torchvision.transforms.v2 import functional as VF

from shortback.choices import AutoAugment, check_choice
from shortback.data import batched
from shortback.data.seeding import derive_seeds, map_seeded, uniform
from shortback.errors import UserError

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_POLICIES = {"cifar10": AutoAugmentPolicy.CIFAR10, "imagenet": AutoAugmentPolicy.IMAGENET}

# Grey, for areas that a policy uncovers, as in common implementations of the policies; v2's default is black.
_POLICY_FILL = 128

# Purposes of draws. Each has its own draws, so that enabling one augmentation does not change the others.
_RESIZED_CROP, _CROP, _FLIP, _POLICY, _CUTOUT, _ROLL, _AFFINE = range(7)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentations of the training images, applied in this order; all are off by default.

    Attributes:
        resized_crop: cut out 8 to 100 % of the area, with an aspect ratio of 3:4 to 4:3, and resize it, as is
            usual for ImageNet.
        crop_padding: pad by this many black pixels and crop back to the original size at a random position.
        flip: mirror left to right, with probability 1/2.
        roll: shift cyclically by up to this many pixels, vertically and horizontally, in either direction.
        rotate: rotate by up to this many degrees, in either direction.
        shear: shear along the rows by up to this many degrees, in either direction.
        auto_augment: AutoAugment with the policy found for CIFAR-10 or for ImageNet.
        rand_augment: RandAugment with two operations of this magnitude, 0 ... 30.
        cutout: blacken a square of this side, in pixels, at a random position, before normalisation.
        mixup: alpha of the Beta distribution of mixup; 0 is off.
        cutmix: alpha of the Beta distribution of CutMix; 0 is off. If both are on, one of them is drawn for each
            batch.

    Raises:
        ValueError: if a value is out of range, or two augmentations exclude each other.
    """

    resized_crop: bool = False
    crop_padding: int = 0
    flip: bool = False
    roll: int = 0
    rotate: float = 0.0
    shear: float = 0.0
    auto_augment: AutoAugment | None = None
    rand_augment: int | None = None
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "roll", "rotate", "shear", "cutout", "mixup", "cutmix"):
            if not getattr(self, name) >= 0:  # not a number is neither
                raise UserError(f"{name} must be 0 (off) or above, not {getattr(self, name)}")
        if self.auto_augment is not None:
            check_choice("auto_augment", self.auto_augment, AutoAugment)
        if self.rand_augment is not None and not 0 <= self.rand_augment <= 30:
            raise UserError(f"rand_augment must be a magnitude of 0 ... 30, or None, not {self.rand_augment}")
        if self.auto_augment is not None and self.rand_augment is not None:
            raise UserError("auto_augment and rand_augment exclude each other: set one of them to None")
        if self.resized_crop and self.crop_padding:
            raise UserError("resized_crop and crop_padding exclude each other: switch one of them off")

    def first_other_augmentation(self) -> str | None:
        """Name the first enabled augmentation other than padded crop, flip, Cutout and mixing; None without one."""
        on = [name for name in ("resized_crop", "roll", "rotate", "shear", "auto_augment") if getattr(self, name)]
        on += ["rand_augment"] * (self.rand_augment is not None)  # its magnitude 0 changes images, too
        return next(iter(on), None)


class Draws(NamedTuple):
    """Random parameters of crop, flip and Cutout for n images; None for augmentations that are off.

    Attributes:
        offsets: int64 [n, 2], top and left of the crop in the padded image.
        flipped: bool [n], whether to mirror the image.
        centres: int64 [n, 2], row and column of the centre of the black square.
    """

    offsets: Tensor | None
    flipped: Tensor | None
    centres: Tensor | None


class TrainTransform:
    """Augments single images, or a whole batch at once with a seed for each sample.

    Padded crop, flip, roll, rotation, shear and Cutout run on the whole batch (see `shortback.data.batched`); resized
    crop, AutoAugment and RandAugment are torchvision's and run image by image. An image's augmentation depends only on
    its seed, not on the rest of its batch.

    Without a resized crop, images are first brought to `image_size`: the shorter side is resized to it, then the centre
    is cut out.

    Args:
        augmentation: the augmentations to apply; mixup and CutMix are left to `batch_mixing`.
        image_size: side of the resulting images, in pixels.
    """

    def __init__(self, augmentation: Augmentation, *, image_size: int) -> None:
        self.augmentation = augmentation
        self.image_size = image_size
        self._resized_crop = v2.RandomResizedCrop(image_size) if augmentation.resized_crop else None
        self._policy = _make_policy(augmentation)

    def __call__(self, image: Tensor) -> Tensor:
        """Augment one image, seeded from the global generator: uint8 [C, H, W] -> uint8 [C, image_size, image_size]."""
        return self.batch([image], seeds=torch.randint(2**63 - 1, (1,)))[0]

    def batch(self, images: Tensor | Sequence[Tensor], *, seeds: Tensor) -> Tensor:
        """Augment many images, each with draws from its own seed.

        Args:
            images: uint8 [N, C, H, W], or N images uint8 [C, H, W] whose sizes may differ.
            seeds: int64 [N].

        Returns:
            uint8 [N, C, image_size, image_size]; the state of the global generator is preserved.
        """
        chosen, draws = self.augmentation, self.draws(seeds)
        if self._resized_crop is not None:
            crops = map_seeded(self._resized_crop, images, seeds=derive_seeds(seeds, _RESIZED_CROP))
            pixels = torch.stack(crops)
        else:
            pixels = _fit(images, resize=self.image_size, crop=self.image_size)
        if draws.offsets is not None:
            pixels = batched.pad_and_crop(pixels, padding=chosen.crop_padding, offsets=draws.offsets)
        if draws.flipped is not None:
            pixels = batched.flip(pixels, chosen=draws.flipped)
        if chosen.roll:
            offsets = (uniform(derive_seeds(seeds, _ROLL), 2) * (2 * chosen.roll + 1)).long() - chosen.roll
            pixels = batched.roll(pixels, offsets=offsets)
        if chosen.rotate or chosen.shear:
            most = torch.tensor([chosen.rotate, chosen.shear])
            angles, shears = ((2 * uniform(derive_seeds(seeds, _AFFINE), 2) - 1) * most).deg2rad().unbind(1)
            pixels = batched.turn_and_shear(pixels, angles=angles, shears=shears)
        if self._policy is not None:
            pixels = _apply_policy(self._policy, pixels, seeds=derive_seeds(seeds, _POLICY))
        if draws.centres is not None:
            pixels = batched.cutout(pixels, side=chosen.cutout, centres=draws.centres)
        return pixels

    def draws(self, seeds: Tensor) -> Draws:
        """Return what `batch` draws for crop, flip and Cutout from the seeds of n images, int64 [n]."""
        chosen = self.augmentation
        offsets = flipped = centres = None
        if chosen.crop_padding:
            offsets = (uniform(derive_seeds(seeds, _CROP), 2) * (2 * chosen.crop_padding + 1)).long()
        if chosen.flip:
            flipped = uniform(derive_seeds(seeds, _FLIP), 1)[:, 0] < 0.5
        if chosen.cutout:
            centres = (uniform(derive_seeds(seeds, _CUTOUT), 2) * self.image_size).long()
        return Draws(offsets, flipped, centres)


class EvalTransform:
    """Resizes the shorter side of images and cuts out the centre; leaves images of the right size unchanged.

    See `eval_transform` for the arguments.
    """

    def __init__(self, *, image_size: int, resize: int | None = None) -> None:
        if resize is not None and resize < image_size:
            raise UserError(f"resize must be at least image_size, {image_size} pixels, not {resize}")
        self.image_size = image_size
        self.resize = resize or image_size

    def __call__(self, image: Tensor) -> Tensor:
        """Transform one image: uint8 [C, H, W] -> uint8 [C, image_size, image_size]."""
        return self.batch([image])[0]

    def batch(self, images: Tensor | Sequence[Tensor], *, seeds: Tensor | None = None) -> Tensor:
        """Transform uint8 [N, C, H, W], or N images of any size, to [N, C, image_size, image_size]; ignores `seeds`."""
        return _fit(images, resize=self.resize, crop=self.image_size)


def train_transform(augmentation: Augmentation, *, image_size: int) -> TrainTransform:
    """Return a `TrainTransform`, whose images have `image_size` pixels a side."""
    return TrainTransform(augmentation, image_size=image_size)


def eval_transform(*, image_size: int, resize: int | None = None) -> EvalTransform:
    """Return an `EvalTransform`, which brings evaluation images to one size.

    Args:
        image_size: side of the centre that is cut out, in pixels.
        resize: length the shorter side is resized to before that, in pixels; defaults to `image_size`.

    Raises:
        ValueError: if `resize` is below `image_size`.
    """
    return EvalTransform(image_size=image_size, resize=resize)


def normalize(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    r"""Normalise a batch of bytes for a network, $(x / 255 - \mu_c) / \sigma_c$.

    Args:
        images: uint8 [N, C, H, W].
        mean: $\mu_c$ of each channel, in units of [0, 1].
        std: $\sigma_c$ of each channel, in the same units.

    Returns:
        float32 [N, C, H, W] in the channels-last memory format.
    """
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = -255 * torch.tensor(mean, dtype=torch.float64) * scale
    # Convert and scale plane by plane, and rearrange last: three times as fast on a CPU as rearranging first.
    planes = images.to(torch.float32, memory_format=torch.contiguous_format)
    planes.mul_(scale.float().view(-1, 1, 1)).add_(shift.float().view(-1, 1, 1))
    return planes.contiguous(memory_format=torch.channels_last)


def batch_mixing(augmentation: Augmentation, *, num_classes: int) -> Mixing | None:
    """Return the function that mixes normalised batches, by torchvision's MixUp and CutMix.

    Returns:
        None if neither is on; else a function (images float32 [N, C, H, W], labels int64 [N]) -> (mixed images of
        the same shape, soft targets float32 [N, num_classes]), which pairs each sample with the one before it and
        draws from the global generator.
    """
    mixings: list[Callable] = []
    if augmentation.mixup:
        mixings.append(v2.MixUp(alpha=augmentation.mixup, num_classes=num_classes))
    if augmentation.cutmix:
        mixings.append(v2.CutMix(alpha=augmentation.cutmix, num_classes=num_classes))
    if not mixings:
        return None
    return mixings[0] if len(mixings) == 1 else v2.RandomChoice(mixings)


def _make_policy(augmentation: Augmentation) -> Callable[[Image.Image], Image.Image] | None:
    if augmentation.auto_augment is not None:
        return v2.AutoAugment(_POLICIES[augmentation.auto_augment], fill=_POLICY_FILL)
    if augmentation.rand_augment is not None:
        return v2.RandAugment(num_ops=2, magnitude=augmentation.rand_augment, fill=_POLICY_FILL)
    return None


def _apply_policy(policy: Callable[[Image.Image], Image.Image], images: Tensor, *, seeds: Tensor) -> Tensor:
    # On PIL images, not tensors: the policies were found with PIL's operations, which are also a third faster on
    # small images.
    if images.shape[1] not in (1, 3):
        raise UserError(f"AutoAugment and RandAugment need 1 or 3 channels, not {images.shape[1]}")
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, C]
    grey = images.shape[1] == 1
    sources = map(Image.fromarray, pixels[..., 0] if grey else pixels)
    results = np.stack([np.asarray(image) for image in map_seeded(policy, sources, seeds=seeds)])
    return torch.from_numpy(results[..., None] if grey else results).permute(0, 3, 1, 2)


def _fit(images: Tensor | Sequence[Tensor], *, resize: int, crop: int) -> Tensor:
    if isinstance(images, Tensor):
        return VF.center_crop(VF.resize(images, [resize]), [crop, crop])
    return torch.stack([VF.center_crop(VF.resize(image, [resize]), [crop, crop]) for image in images])
