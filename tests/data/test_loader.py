import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from shortback.data import ArrayImages, Augmentation, BatchLoader, Subset, batch_mixing, train_transform
from shortback.data.images import ImageSet
from shortback.errors import UserError

NUM = 22
AUGMENTATION = Augmentation(crop_padding=2, flip=True, rand_augment=5, cutout=2, mixup=0.5, cutmix=1.0)


def worker_processes(test: Callable[..., None]) -> Callable[..., None]:
    """Allow what a machine with one core, and a Python of 3.12 or later, warn about."""
    for warning in ("This DataLoader will create", "This process .* is multi-threaded"):
        test = pytest.mark.filterwarnings(f"ignore:{warning}")(test)
    return test


def numbered(num: int = NUM) -> ArrayImages:
    """Images [3, 6, 6] with their index in every pixel."""
    pixels = torch.arange(num, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 6, 6).contiguous()
    return ArrayImages(pixels, torch.arange(num))


def noisy(num: int = NUM) -> ArrayImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (num, 3, 6, 6), dtype=torch.uint8, generator=generator)
    return ArrayImages(pixels, torch.arange(num) % 5)


def plain(images: ImageSet | None = None, **changes: object) -> BatchLoader:
    """No augmentation, and pixels that come out as the index times 1 / 255."""
    settings: dict[str, object] = {
        "transform": None,
        "batch_size": 8,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "seed": 0,
        "shuffle": False,
        "drop_last": False,
    }
    return BatchLoader(numbered() if images is None else images, **(settings | changes))  # type: ignore[arg-type]


def augmenting(images: ImageSet | None = None, **changes: object) -> BatchLoader:
    settings: dict[str, object] = {
        "transform": train_transform(AUGMENTATION, image_size=6),
        "mixing": batch_mixing(AUGMENTATION, num_classes=5),
        "shuffle": True,
        "drop_last": True,
        "seed": 7,
    }
    return plain(noisy() if images is None else images, **(settings | changes))


def same(left: list[tuple[Tensor, Tensor]], right: list[tuple[Tensor, Tensor]]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(x, y) for a, b in zip(left, right, strict=True) for x, y in zip(a, b, strict=True)
    )


def joined(parts: list[list[tuple[Tensor, Tensor]]]) -> list[tuple[Tensor, Tensor]]:
    """The batches of several ranks as one rank would have had them."""
    return [(torch.cat([x for x, _ in batch]), torch.cat([y for _, y in batch])) for batch in zip(*parts, strict=True)]


def test_batches_in_order() -> None:
    loader = plain()
    batches = list(loader.epoch(0))
    assert [len(labels) for _, labels in batches] == [8, 8, 6]
    assert len(loader) == 3
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(NUM))
    for images, labels in batches:
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(images[:, 1, 3, 2] * 255, labels.float())


def test_shuffling_gives_every_sample_once_in_an_order_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = plain(seed=seed, shuffle=True)
        return torch.cat([labels for _, labels in loader.epoch(epoch)]).tolist()

    assert sorted(order(0, 0)) == list(range(NUM))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_the_last_batch_can_be_dropped() -> None:
    loader = plain(drop_last=True)
    assert len(loader) == 2
    assert [len(labels) for _, labels in loader.epoch(0)] == [8, 8]


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    first = list(augmenting().epoch(3))
    assert same(first, list(augmenting().epoch(3)))
    assert not same(first, list(augmenting().epoch(4)))
    assert not same(first, list(augmenting(seed=8).epoch(3)))


@worker_processes
def test_workers_change_nothing() -> None:
    assert same(list(augmenting(num_workers=2).epoch(3)), list(augmenting().epoch(3)))


@pytest.fixture
def as_if_spawned():
    """What a process is left with that `multiprocessing` spawned, as ablations do."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@worker_processes
@pytest.mark.usefixtures("as_if_spawned")
def test_workers_read_images_mapped_from_a_file_in_a_process_that_was_spawned(tmp_path) -> None:
    pixels = torch.arange(6 * 3 * 4 * 4).to(torch.uint8)
    pixels.numpy().tofile(tmp_path / "pixels")
    mapped = torch.from_file(str(tmp_path / "pixels"), shared=False, size=len(pixels), dtype=torch.uint8)
    images = ArrayImages(mapped.view(6, 3, 4, 4), torch.arange(6))
    loader = BatchLoader(
        images, transform=None, batch_size=2, mean=(0.0,) * 3, std=(1.0,) * 3, seed=0, shuffle=False, drop_last=False,
        num_workers=1,
    )  # fmt: skip
    batches = [x for x, _ in loader.epoch(0)]
    torch.testing.assert_close(torch.cat(batches), images.images / 255)


@worker_processes
def test_workers_start_in_mid_epoch_too() -> None:
    part = list(augmenting(batch_size=2, num_workers=1).epoch(3, start=8))
    assert same(part, list(augmenting(batch_size=2).epoch(3))[8:])


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_get_slices_of_the_global_batch(world_size: int) -> None:
    parts = [list(augmenting(rank=rank, world_size=world_size).epoch(3)) for rank in range(world_size)]
    assert all(len(labels) == 8 // world_size for part in parts for _, labels in part)
    assert same(joined(parts), list(augmenting().epoch(3)))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_an_epoch_resumes_where_it_stopped(start: int) -> None:
    whole = list(augmenting(batch_size=4).epoch(1))
    assert same(list(augmenting(batch_size=4).epoch(1, start=start)), whole[start:])


def test_nothing_before_the_start_is_read() -> None:
    class Recording:
        labels = torch.arange(NUM)
        read: list[int] = []  # noqa: RUF012

        def __len__(self) -> int:
            return NUM

        def image(self, index: int) -> Tensor:
            self.read.append(index)
            return torch.zeros(3, 6, 6, dtype=torch.uint8)

    batches = plain(Recording(), batch_size=4).epoch(0, start=4)
    assert Recording.read == []
    next(batches)
    assert Recording.read == [16, 17, 18, 19]


@pytest.mark.parametrize(("num", "world_size"), [(22, 4), (17, 4), (18, 3), (16, 8), (1, 2)])
def test_ranks_together_see_every_sample_once_in_evaluation(num: int, world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        loader = plain(numbered(num), rank=rank, world_size=world_size)
        batches = list(loader.epoch(0))
        assert len(batches) == len(loader)
        assert all(len(labels) for _, labels in batches)
        seen += [label for _, labels in batches for label in labels.tolist()]
    assert sorted(seen) == list(range(num))


@worker_processes
@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_global_generators_are_left_alone(num_workers: int) -> None:
    loader = augmenting(num_workers=num_workers)
    torch.manual_seed(0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    for _ in loader.epoch(0):
        assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[index, union-attr]


def test_the_global_generators_do_not_matter() -> None:
    torch.manual_seed(1)
    first = list(augmenting().epoch(0))
    torch.manual_seed(2)
    assert same(first, list(augmenting().epoch(0)))


def test_any_function_of_one_image_is_a_transform() -> None:
    def noise(image: Tensor) -> Tensor:
        return image + torch.randint(0, 100, image.shape, dtype=torch.uint8)

    whole = list(plain(noisy(), transform=noise).epoch(0))
    assert not same(whole, list(plain(noisy(), transform=noise).epoch(1)))
    assert same(whole[1:], list(plain(noisy(), transform=noise).epoch(0, start=1)))
    parts = [list(plain(noisy(), transform=noise, rank=rank, world_size=2).epoch(0)) for rank in (0, 1)]
    assert same(joined(parts), whole)


def test_mixing_gives_soft_targets_that_describe_the_images() -> None:
    # A class is its number in every pixel, so the mean of a mixed image is that of its targets.
    images = ArrayImages(numbered(5).images.repeat(4, 1, 1, 1), torch.arange(20) % 5)
    mixing = batch_mixing(Augmentation(mixup=0.7, cutmix=0.7), num_classes=5)
    for mixed, targets in plain(images, batch_size=10, shuffle=True, mixing=mixing).epoch(0):
        assert targets.shape == (10, 5)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(targets.sum(1), torch.ones(10))
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)) * 255, targets @ torch.arange(5.0))


def test_an_empty_split_has_no_batches() -> None:
    loader = plain(Subset(numbered(), torch.tensor([], dtype=torch.int64)))
    assert len(loader) == 0
    assert list(loader.epoch(0)) == []


def test_an_epoch_can_be_left_early() -> None:
    batches = plain().epoch(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]


@worker_processes
def test_workers_leave_interrupts_to_the_parent() -> None:
    batches = plain(batch_size=1, num_workers=1).epoch(0)
    next(batches)
    for worker in multiprocessing.active_children():
        os.kill(cast(int, worker.pid), signal.SIGINT)
    assert len(list(batches)) == NUM - 1


class Failing:
    """Images of which one raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.labels = torch.arange(NUM)

    def __len__(self) -> int:
        return NUM

    def image(self, index: int) -> Tensor:
        if index == 12:
            raise self.error
        return torch.zeros(3, 6, 6, dtype=torch.uint8)


@worker_processes
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "error",
    [UserError("cat/3.png can no longer be read"), FileNotFoundError(2, "No such file or directory", "cat/3.png")],
)
def test_what_a_file_has_done_wrong_is_raised_as_it_is(error: Exception, num_workers: int) -> None:
    """By its own type and message, in one line, whatever process has found it."""
    batches = plain(Failing(error), num_workers=num_workers).epoch(0)
    next(batches)
    with pytest.raises(type(error)) as caught:
        next(batches)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)


class UnsendableError(OSError):
    """Whose constructor takes other arguments than it hands on, as those of libraries do."""

    def __init__(self, path: str, line: int) -> None:
        super().__init__(f"{path}:{line}")


@worker_processes
@pytest.mark.parametrize(
    ("error", "kind"), [(RuntimeError("a fault of ours"), RuntimeError), (UnsendableError("a", 3), RuntimeError)]
)
def test_what_nobody_has_done_wrong_keeps_the_traceback_of_its_process(error: Exception, kind: type) -> None:
    batches = plain(Failing(error), num_workers=1).epoch(0)
    next(batches)
    with pytest.raises(kind, match=r"(?s)DataLoader worker process 0.*Traceback.*in image"):
        next(batches)


def test_pinned_memory_is_used_where_there_is_an_accelerator() -> None:
    images, labels = next(plain(pin_memory=True).epoch(0))
    expected = torch.accelerator.is_available()
    assert (images.is_pinned(), labels.is_pinned()) == (expected, expected)
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_workers": -1}, "num_workers must be 0"),
        ({"rank": 2, "world_size": 2}, "rank must be in 0"),
        (
            {"batch_size": 9, "world_size": 2, "shuffle": True},
            "cannot be shared .* multiple of 2, such as 10",
        ),
        ({"batch_size": 2, "world_size": 4}, "choose at least 4"),
        ({"batch_size": 23, "drop_last": True}, "a batch of 23 is more than the 22 images"),
        ({"std": (0.0, 0.2, 0.2)}, "std must be above 0"),
        ({"mean": (125.3, 123.0, 113.9)}, r"divide \(125\.3, 123\.0, 113\.9\) by 255"),
        ({"std": (0.2, 0.2)}, "std needs 3 numbers"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain(**changes)  # type: ignore[arg-type]


def test_statistics_of_other_images_are_refused() -> None:
    loader = plain(mean=(0.0,), std=(1.0,))
    with pytest.raises(ValueError, match="mean and std need a number for each channel, not 1"):
        next(iter(loader.epoch(0)))


@pytest.mark.parametrize("start", [-1, 4])
def test_a_start_outside_the_epoch_is_refused_at_once(start: int) -> None:
    with pytest.raises(ValueError, match=r"start must be in 0 \.\.\. 3"):
        plain().epoch(0, start=start)


class TestSequences:
    """Samples of T = 3 steps and 2 channels, whose bytes say which they are."""

    def loader(self, *, mixing=None, **settings):
        images = torch.arange(5 * 6, dtype=torch.uint8).view(5, 6, 1, 1).expand(5, 6, 4, 4).contiguous()
        data = ArrayImages(images, torch.arange(5))
        numbers = {"mean": (0.0, 0.0), "std": (1 / 255, 1 / 255), "seed": 0, "shuffle": False, "drop_last": False}
        return BatchLoader(data, transform=None, batch_size=2, num_steps=3, mixing=mixing, **{**numbers, **settings})

    def test_time_comes_first_and_counts_stay_counts(self):
        x, y = list(self.loader().epoch(0))[1]
        assert y.tolist() == [2, 3]
        assert x.shape == (3, 2, 2, 4, 4)
        assert x.dtype == torch.float32
        assert x[..., 0, 0].tolist() == [[[12, 13], [18, 19]], [[14, 15], [20, 21]], [[16, 17], [22, 23]]]
        assert x.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)

    def test_mixing_takes_the_same_part_of_all_steps(self):
        mixing = batch_mixing(Augmentation(mixup=0.4), num_classes=5)
        x, y = next(iter(self.loader(mixing=mixing).epoch(0)))
        assert x.shape == (3, 2, 2, 4, 4)
        sample = x[:, 0, :, 0, 0].flatten()  # the first, mixed with the last of its batch
        share = y[0, 0]
        torch.testing.assert_close(sample, share * torch.arange(6) + (1 - share) * torch.arange(6, 12))

    def test_augmentation_is_the_same_for_all_steps(self):
        images = torch.randint(0, 9, (1, 2, 8, 8), dtype=torch.uint8).repeat(4, 3, 1, 1)
        transform = train_transform(Augmentation(flip=True, roll=2, rotate=20, crop_padding=1), image_size=8)
        settings = {"mean": (0.0, 0.0), "std": (1 / 255, 1 / 255), "seed": 1, "shuffle": True, "drop_last": False}
        loader = BatchLoader(
            ArrayImages(images, torch.zeros(4, dtype=torch.int64)),
            transform=transform,
            batch_size=4,
            num_steps=3,
            **settings,
        )
        x, _ = next(iter(loader.epoch(0)))
        assert torch.equal(x[0], x[1])
        assert torch.equal(x[0], x[2])
        assert not torch.equal(x[0, 0], x[0, 1])
