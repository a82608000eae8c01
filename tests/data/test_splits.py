import pytest
import torch

from shortback.data import ArrayImages, ImageSet, limit_images, split_validation


def images(counts: list[int]) -> ArrayImages:
    """So many images of each class, the classes mixed; each image's first pixel is its index."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ArrayImages(pixels, labels)


def indices(part: ImageSet) -> list[int]:
    return [int(part.image(index)[0, 0, 0]) for index in range(len(part))]


def counts(part: ImageSet) -> list[int]:
    return torch.bincount(part.labels).tolist()


def test_validation_takes_the_same_share_of_every_class() -> None:
    source = images([50, 30, 10])
    train, validation = split_validation(source, fraction=0.1, seed=3)
    assert counts(validation) == [5, 3, 1]
    assert counts(train) == [45, 27, 9]
    assert sorted(indices(train) + indices(validation)) == list(range(90))
    assert indices(validation) == sorted(indices(validation))
    assert validation.labels.tolist() == source.labels[indices(validation)].tolist()


def test_the_split_is_a_function_of_the_seed() -> None:
    source = images([50, 30])
    again, other = (split_validation(source, fraction=0.2, seed=seed)[1] for seed in (3, 4))
    first = split_validation(source, fraction=0.2, seed=3)[1]
    assert indices(first) == indices(again)
    assert indices(first) != indices(other)


def test_a_fraction_of_zero_leaves_validation_empty() -> None:
    train, validation = split_validation(images([3, 1]), fraction=0.0, seed=0)
    assert (len(train), len(validation)) == (4, 0)


@pytest.mark.parametrize(
    ("fraction", "message"),
    [(0.1, "sets 0 of the 3 samples of class 1 aside"), (0.9, "sets 3 of the 3 samples of class 1")],
)
def test_a_class_that_would_end_with_nothing_is_an_error(fraction: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_validation(images([20, 3]), fraction=fraction, seed=0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_out_of_range_is_an_error(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        split_validation(images([20, 20]), fraction=fraction, seed=0)


def test_the_limit_is_balanced_as_far_as_the_classes_allow() -> None:
    source = images([50, 30, 3])
    assert counts(limit_images(source, count=9, seed=0)) == [3, 3, 3]
    assert counts(limit_images(source, count=23, seed=0)) == [10, 10, 3]
    assert sorted(counts(limit_images(source, count=8, seed=0))) == [2, 3, 3]
    assert indices(limit_images(source, count=83, seed=0)) == list(range(83))


def test_a_larger_limit_holds_the_smaller_one() -> None:
    source = images([50, 30])
    small, large, other = (
        indices(limit_images(source, count=count, seed=seed)) for count, seed in ((10, 0), (20, 0), (10, 1))
    )
    assert set(small) < set(large)
    assert small != other
    assert small == sorted(small)


@pytest.mark.parametrize("count", [0, 81])
def test_a_limit_out_of_range_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match=r"must be in 1 \.\.\. 80"):
        limit_images(images([50, 30]), count=count, seed=0)
