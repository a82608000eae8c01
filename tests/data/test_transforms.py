import pytest
import torch
from torch import Tensor

from shortback.data import Augmentation, batch_mixing, eval_transform, normalize, train_transform
from shortback.data.seeding import derive_seeds

NUM = 400
SEEDS = derive_seeds(0, torch.arange(NUM))


def gradient_image() -> Tensor:
    """uint8 [1, 6, 6], every pixel another value, none black: 1 ... 36."""
    return torch.arange(1, 37, dtype=torch.uint8).view(1, 6, 6)


def many(image: Tensor, num: int = NUM) -> Tensor:
    return image.expand(num, *image.shape).contiguous()


def augmented(image: Tensor, augmentation: Augmentation, *, image_size: int = 6) -> Tensor:
    return train_transform(augmentation, image_size=image_size).batch(many(image), seeds=SEEDS)


def test_no_augmentation_changes_nothing() -> None:
    assert torch.equal(augmented(gradient_image(), Augmentation()), many(gradient_image()))


def test_flip_mirrors_half_of_the_images() -> None:
    image = gradient_image()
    result = augmented(image, Augmentation(flip=True))
    is_flipped = (result == image.flip(-1)).all(dim=(1, 2, 3))
    assert ((result == image).all(dim=(1, 2, 3)) | is_flipped).all()
    # Binomial with p = 1/2: four standard deviations of the share are 2 / sqrt(400).
    assert abs(is_flipped.double().mean() - 0.5) < 0.1


def test_crop_draws_every_window_alike() -> None:
    padded = torch.nn.functional.pad(gradient_image(), [1] * 4)
    windows = {(y, x): padded[:, y : y + 6, x : x + 6] for y in range(3) for x in range(3)}
    result = augmented(gradient_image(), Augmentation(crop_padding=1))
    counts = [int((result == window).all(dim=(1, 2, 3)).sum()) for window in windows.values()]
    assert sum(counts) == NUM
    # Binomial with p = 1/9: mean 44.4, standard deviation 6.3.
    assert min(counts) > 44.4 - 25
    assert max(counts) < 44.4 + 25


def test_cutout_centres_lie_anywhere_in_the_image() -> None:
    result = augmented(gradient_image(), Augmentation(cutout=1))
    black = (result == 0).flatten(1)
    assert (black.sum(1) == 1).all()
    assert black.any(0).all()  # each of the 36 pixels was hit, with 400 draws
    assert torch.equal(result.masked_fill(result == 0, 1), many(gradient_image()).masked_fill(result == 0, 1))


def test_resized_crop_keeps_flat_images_flat_and_draws_different_windows() -> None:
    settings = Augmentation(resized_crop=True)
    assert augmented(torch.full((3, 9, 7), 90, dtype=torch.uint8), settings, image_size=4).unique() == 90
    ramp = torch.arange(40, dtype=torch.uint8).expand(3, 40, 40).contiguous()
    result = augmented(ramp, settings, image_size=4)
    assert result.shape == (NUM, 3, 4, 4)
    assert len(result[:, 0, 0, 0].unique()) > 10


def test_augmentations_do_not_change_each_others_draws() -> None:
    image = gradient_image()
    flipped = augmented(image, Augmentation(flip=True))
    both = augmented(image, Augmentation(flip=True, cutout=2))
    assert torch.equal(both[both > 0], flipped[both > 0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(auto_augment="cifar10"),
        Augmentation(auto_augment="imagenet"),
        Augmentation(rand_augment=9),
    ],
)
def test_policies_change_images_by_their_seed_alone(augmentation: Augmentation, channels: int) -> None:
    transform = train_transform(augmentation, image_size=12)
    images = torch.arange(144, dtype=torch.uint8).view(1, 1, 12, 12).expand(20, channels, 12, 12)
    seeds = derive_seeds(1, torch.arange(20))
    result = transform.batch(images, seeds=seeds)
    assert result.shape == (20, channels, 12, 12)
    assert result.dtype == torch.uint8
    assert len(result.unique(dim=0)) > 5
    assert torch.equal(result[7:9], transform.batch(images[7:9], seeds=seeds[7:9]))


def test_policies_need_a_picture() -> None:
    transform = train_transform(Augmentation(rand_augment=9), image_size=6)
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        transform.batch(torch.zeros(1, 2, 6, 6, dtype=torch.uint8), seeds=SEEDS[:1])


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(crop_padding=2, flip=True, auto_augment="cifar10", cutout=3),
        Augmentation(resized_crop=True, flip=True, rand_augment=5),
    ],
)
def test_a_batch_leaves_the_global_generator_and_its_input_alone(augmentation: Augmentation) -> None:
    images = torch.arange(0, 216, dtype=torch.uint8).view(2, 3, 6, 6)
    kept, state = images.clone(), torch.get_rng_state()
    train_transform(augmentation, image_size=6).batch(images, seeds=SEEDS[:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)


def test_single_images_are_seeded_from_the_global_generator() -> None:
    transform = train_transform(Augmentation(crop_padding=2, flip=True, rand_augment=9), image_size=6)
    image = torch.arange(108, dtype=torch.uint8).view(3, 6, 6)
    torch.manual_seed(0)
    first, second = transform(image), transform(image)
    torch.manual_seed(0)
    assert torch.equal(transform(image), first)
    assert torch.equal(transform(image), second)
    assert not torch.equal(first, second)


def test_other_sizes_are_resized_and_cut_to_the_centre() -> None:
    wide = torch.zeros(1, 4, 12, dtype=torch.uint8)
    wide[:, :, 4:8] = 200
    for transform in (train_transform(Augmentation(), image_size=4), eval_transform(image_size=4)):
        assert transform(wide).tolist() == [[[200] * 4] * 4]
    assert eval_transform(image_size=2)(wide).shape == (1, 2, 2)
    assert eval_transform(image_size=8).batch([wide, wide[:, :, :6]]).shape == (2, 1, 8, 8)


def test_evaluation_resizes_the_shorter_side_first() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    assert eval_transform(image_size=4, resize=8)(image).tolist() == image[:, 2:6, 2:6].tolist()
    assert torch.equal(eval_transform(image_size=8)(image), image)
    with pytest.raises(ValueError, match="resize must be at least image_size, 8 pixels, not 4"):
        eval_transform(image_size=8, resize=4)


def test_normalize_by_hand() -> None:
    images = torch.tensor([0, 255, 51, 102], dtype=torch.uint8).view(1, 2, 1, 2)
    result = normalize(images, mean=(0.5, 0.2), std=(0.25, 0.1))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.flatten(), torch.tensor([-2.0, 2.0, 0.0, 2.0]), rtol=0, atol=1e-6)


def test_normalize_gives_channels_last_and_does_not_depend_on_the_batch() -> None:
    images = torch.randint(0, 256, (5, 3, 7, 9), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    whole = normalize(images, mean=mean, std=std)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalize(images[3:4], mean=mean, std=std), whole[3:4])
    permuted = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(normalize(permuted, mean=mean, std=std), whole)


def test_mixing_pairs_each_sample_with_the_one_before() -> None:
    images = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4).contiguous()
    mixing = batch_mixing(Augmentation(mixup=1.0), num_classes=3)
    assert mixing is not None
    torch.manual_seed(0)
    mixed, targets = mixing(images, torch.arange(3))
    share = float(targets[0, 0])
    assert 0 < share < 1
    expected = torch.eye(3) * share + torch.eye(3).roll(1, 0) * (1 - share)
    torch.testing.assert_close(targets, expected)
    torch.testing.assert_close(mixed[:, 0, 0, 0], expected @ torch.tensor([1.0, 2.0, 3.0]))


def test_cutmix_targets_are_the_shares_of_the_area() -> None:
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8).contiguous()
    mixing = batch_mixing(Augmentation(cutmix=1.0), num_classes=2)
    assert mixing is not None
    torch.manual_seed(1)
    mixed, targets = mixing(images, torch.arange(2))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets[:, 1])
    assert 0 < float(targets[0, 1]) < 1


def test_mixing_is_off_by_default_and_draws_one_of_two() -> None:
    assert batch_mixing(Augmentation(), num_classes=3) is None
    mixing = batch_mixing(Augmentation(mixup=1.0, cutmix=1.0), num_classes=2)
    assert mixing is not None
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8).contiguous()
    torch.manual_seed(0)
    mixed = [mixing(images, torch.arange(2))[0][0] for _ in range(40)]
    num_mixup = sum(len(image.unique()) == 1 for image in mixed)
    assert 5 < num_mixup < 35


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_padding": -1}, "crop_padding must be 0"),
        ({"cutout": -2}, "cutout must be 0"),
        ({"mixup": -0.1}, "mixup must be 0"),
        ({"auto_augment": "svhn"}, "auto_augment='svhn': must be one of cifar10, imagenet"),
        ({"rand_augment": 31}, "magnitude of 0 ... 30"),
        ({"auto_augment": "cifar10", "rand_augment": 9}, "exclude each other"),
        ({"resized_crop": True, "crop_padding": 4}, "exclude each other"),
    ],
)
def test_augmentation_out_of_range_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)  # type: ignore[arg-type]
