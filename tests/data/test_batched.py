import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as VF

from shortback.data import batched


def random_images(num: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num, channels, height, width), dtype=torch.uint8, generator=generator)


def test_crop_by_hand() -> None:
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    crops = {
        (top, left): batched.pad_and_crop(image, padding=1, offsets=torch.tensor([[top, left]]))[0, 0].tolist()
        for top, left in ((0, 0), (1, 1), (2, 1), (0, 2))
    }
    assert crops == {
        (0, 0): [[0, 0], [0, 1]],
        (1, 1): [[1, 2], [3, 4]],
        (2, 1): [[3, 4], [0, 0]],
        (0, 2): [[0, 0], [2, 0]],
    }


def test_crop_is_torchvisions_for_every_sample() -> None:
    images = random_images(9, 3, 7, 5)
    offsets = torch.stack([torch.arange(9) % 5, torch.arange(9) % 3], dim=1)
    expected = [
        VF.crop(VF.pad(image, [2]), top=int(top), left=int(left), height=7, width=5)
        for image, (top, left) in zip(images, offsets, strict=True)
    ]
    assert torch.equal(batched.pad_and_crop(images, padding=2, offsets=offsets), torch.stack(expected))


def test_flip_mirrors_the_chosen() -> None:
    images = torch.tensor([[[[1, 2, 3]]], [[[4, 5, 6]]]], dtype=torch.uint8)
    flipped = batched.flip(images, chosen=torch.tensor([False, True]))
    assert flipped.flatten(1).tolist() == [[1, 2, 3], [6, 5, 4]]
    assert images.flatten(1).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_cutout_by_hand() -> None:
    images = torch.ones(3, 2, 3, 4, dtype=torch.uint8)
    cut = batched.cutout(images, side=2, centres=torch.tensor([[1, 2], [0, 0], [2, 3]]))
    assert cut[:, 0].tolist() == [
        [[1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
        [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
        [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]],
    ]
    assert torch.equal(cut[:, 0], cut[:, 1])
    assert images.min() == 1


def test_cutout_of_odd_side() -> None:
    images = torch.ones(1, 1, 1, 5, dtype=torch.uint8)
    assert batched.cutout(images, side=3, centres=torch.tensor([[0, 2]])).flatten().tolist() == [
        1,
        0,
        0,
        0,
        1,
    ]


def test_roll_by_hand():
    image = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3).expand(3, 2, 2, 3)
    rolled = batched.roll(image, offsets=torch.tensor([[0, 0], [1, 0], [0, -1]]))
    assert rolled[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert rolled[1, 1].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert rolled[2, 0].tolist() == [[1, 2, 0], [4, 5, 3]]


def test_turning_by_right_angles_is_rot90():
    image = torch.randint(0, 255, (4, 3, 7, 7), dtype=torch.uint8)
    angles = torch.arange(4, dtype=torch.float64) * torch.pi / 2
    turned = batched.turn_and_shear(image, angles=angles, shears=torch.zeros(4, dtype=torch.float64))
    for i in range(4):
        assert torch.equal(turned[i], image[i].rot90(i, (1, 2)))


def test_shearing_shifts_each_row_by_its_distance_from_the_middle():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[..., 2] = 9
    sheared = batched.turn_and_shear(
        image, angles=torch.zeros(1, dtype=torch.float64), shears=torch.full((1,), torch.pi / 4, dtype=torch.float64)
    )
    assert torch.equal(sheared[0, 0], 9 * torch.eye(5, dtype=torch.uint8))
