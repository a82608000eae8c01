"""Batches made on the device are those of the loader, bit for bit; here the device is the CPU."""

import pytest
import torch
from torchvision.transforms import v2

from shortback.data import Augmentation, BatchLoader, batch_mixing, eval_transform, train_transform
from shortback.data.images import ArrayImages, Subset
from shortback.data.resident import ResidentLoader, why_not_resident
from shortback.errors import UserError

MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")


def images(number=50, channels=3, height=12, width=12):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (number, channels, height, width), generator=rng, dtype=torch.uint8)
    return ArrayImages(pixels, torch.arange(number) % 7)


def settings(**changed):
    usual = {"batch_size": 8, "mean": MEAN, "std": STD, "seed": 3, "shuffle": True, "drop_last": False}
    return usual | {"transform": train_transform(Augmentation(), image_size=12)} | changed


def augmented(**chosen):
    return train_transform(Augmentation(**chosen), image_size=12)


def assert_equal(split, *, start=0, **changed):
    chosen = settings(**changed)
    expected = list(BatchLoader(split, **chosen).epoch(2, start=start))
    loader = ResidentLoader(split, device=CPU, **chosen)
    for is_compiled in (False, True):
        loader.is_compiled = is_compiled
        found = list(loader.epoch(2, start=start))
        assert len(found) == len(expected) > 1
        for (x, y), (a, b) in zip(found, expected, strict=True):
            assert torch.equal(x, a)
            assert torch.equal(y, b)
            assert x.dtype == torch.float32
            assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [{}, {"crop_padding": 4}, {"flip": True}, {"cutout": 5}, {"crop_padding": 3, "flip": True, "cutout": 16}],
    ids=lambda chosen: "-".join(chosen) or "nothing",
)
def test_every_augmentation_that_can_be_there(chosen):
    assert_equal(images(), transform=augmented(**chosen))
    assert_equal(images(channels=1), transform=augmented(**chosen), mean=MEAN[:1], std=STD[:1])


@pytest.mark.slow
def test_without_a_transform_images_need_not_be_square():
    assert_equal(images(height=12, width=16), transform=None)


@pytest.mark.slow
def test_parts_ranks_evaluation_mixing_and_the_middle_of_an_epoch():
    crop = augmented(crop_padding=2, flip=True)
    part = Subset(Subset(images(), torch.arange(49, 0, -2)), torch.tensor([3, 0, 7, 20, 11, 4, 9, 1, 22]))
    assert_equal(part, transform=crop, batch_size=4)  # the last batch has one image
    assert_equal(images(), transform=crop, start=3)
    for rank in (0, 1):
        assert_equal(images(48), transform=crop, rank=rank, world_size=2)
    assert_equal(images(), transform=eval_transform(image_size=12), shuffle=False)
    assert_equal(images(), transform=None, shuffle=False)
    mixing = batch_mixing(Augmentation(mixup=0.5, cutmix=1.0), num_classes=7)
    assert_equal(images(), transform=crop, mixing=mixing, drop_last=True)


def test_of_a_part_that_part_alone_lies_on_the_device(monkeypatch):
    part = Subset(Subset(images(50), torch.arange(49, 0, -2)), torch.tensor([3, 0, 7]))
    loader = ResidentLoader(part, device=CPU, **settings(transform=None, shuffle=False))
    assert loader.pixels.numel() == 3 * 3 * 12 * 12
    ((x, y),) = loader.epoch(0)
    ((a, b),) = BatchLoader(part, **settings(transform=None, shuffle=False)).epoch(0)
    assert torch.equal(x, a)
    assert torch.equal(y, b)
    monkeypatch.setattr("shortback.data.resident.MOST_BYTES", 3 * 3 * 12 * 12)
    assert why_not_resident(part, None, num_steps=None) is None  # whatever the tensor takes
    assert "are not kept on a device" in why_not_resident(Subset(images(), torch.arange(4)), None, num_steps=None)


@pytest.mark.parametrize(
    ("split", "transform", "reason"),
    [
        (images(), augmented(roll=2), "roll runs on the CPU"),
        (images(), augmented(auto_augment="cifar10"), "auto_augment runs on the CPU"),
        (images(), v2.Identity(), "Identity runs on the CPU"),
        (images(), train_transform(Augmentation(), image_size=16), "of 12 x 12 are resized to 16 on"),
        (images(), eval_transform(image_size=12, resize=14), "of 12 x 12 are resized to 14 and cropped to 12 on"),
        (images(), eval_transform(image_size=8, resize=12), "of 12 x 12 are cropped to 8 on"),
        (images(width=16), augmented(), "of 12 x 16 are cropped to 12 on"),
        (images(width=16), eval_transform(image_size=14), "of 12 x 16 are resized to 14 and cropped to 14 on"),
    ],
)
def test_what_cannot_be_there_is_refused(split, transform, reason):
    with pytest.raises(UserError, match=f"cannot be made on the device: .*{reason}"):
        ResidentLoader(split, device=CPU, **settings(transform=transform))


def test_sequences_and_files_stay_on_the_cpu(monkeypatch):
    assert "sequences" in why_not_resident(images(), None, num_steps=4)
    split = Subset(images(), torch.arange(4))
    split.source = object()
    assert "decoded when they are read" in why_not_resident(split, None, num_steps=None)
    monkeypatch.setattr("shortback.data.resident.MOST_BYTES", 1000)
    assert "are not kept on a device" in why_not_resident(images(), None, num_steps=None)
