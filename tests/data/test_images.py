import pytest
import torch

from shortback.data import ArrayImages, ImageData, Subset
from shortback.data.images import read_images


def numbered(num: int, *, num_classes: int = 2) -> ArrayImages:
    """Images [1, 2, 2] whose pixels are their index."""
    pixels = torch.arange(num, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return ArrayImages(pixels, torch.arange(num) % num_classes)


def data(**changes: object) -> ImageData:
    settings = {
        "name": "numbers",
        "classes": ("even", "odd"),
        "train": numbered(6),
        "test": numbered(4),
        "mean": (0.5,),
        "std": (0.25,),
        "in_channels": 1,
        "image_size": 2,
    }
    return ImageData(**(settings | changes))  # type: ignore[arg-type]


def test_a_subset_of_a_subset_names_the_right_images() -> None:
    subset = Subset(Subset(numbered(10), torch.tensor([9, 7, 5, 3])), torch.tensor([2, 0]))
    assert len(subset) == 2
    assert subset.labels.tolist() == [1, 1]
    assert [subset.image(index).unique().tolist() for index in (0, 1)] == [[5], [9]]
    assert read_images(subset, torch.tensor([1, 0, 1]))[:, 0, 0, 0].tolist() == [9, 5, 9]  # type: ignore[call-overload]


def test_images_read_from_an_array_are_copies() -> None:
    images = numbered(3)
    read = read_images(images, torch.tensor([1]))
    assert isinstance(read, torch.Tensor)
    read.zero_()
    assert images.image(1).unique().tolist() == [1]


def test_images_without_an_array_are_read_one_by_one() -> None:
    class Growing:
        labels = torch.tensor([0, 1, 2])

        def __len__(self) -> int:
            return 3

        def image(self, index: int) -> torch.Tensor:
            return torch.zeros(1, index + 1, 2, dtype=torch.uint8)

    read = read_images(Subset(Growing(), torch.tensor([2, 0])), torch.tensor([0, 1]))
    assert [list(image.shape) for image in read] == [[1, 3, 2], [1, 1, 2]]


def test_labels_become_int64() -> None:
    images = ArrayImages(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 0], dtype=torch.uint8))
    assert images.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\[2, 2, 2\]"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"\[3\]"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2), "float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(pixels: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArrayImages(pixels, labels)


@pytest.mark.parametrize("indices", [torch.tensor([0, 3]), torch.tensor([-1]), torch.tensor([0.0])])
def test_a_subset_outside_its_source_is_refused(indices: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="indices must"):
        Subset(numbered(3), indices)


def test_labels_outside_the_classes_are_refused() -> None:
    wrong = numbered(6, num_classes=3)
    with pytest.raises(ValueError, match=r"2 training labels lie outside the 2 classes .* is 2, of image 2"):
        data(train=wrong)
    with pytest.raises(ValueError, match="2 test labels"):
        data(test=wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean needs 1 numbers"),
        ({"mean": (127.5,)}, "divide .* by 255"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"train": Subset(numbered(1), torch.tensor([], dtype=torch.int64))}, "no training image"),
    ],
)
def test_data_that_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(**changes)


def test_data_knows_its_number_of_classes() -> None:
    assert data().num_classes == 2
