import gzip
from pathlib import Path

import pytest
import torch

from shortback.data import fashion_mnist
from shortback.data.idx import idx_bytes


def write_split(folder: Path, split: str, *, num_images: int, num_labels: int) -> None:
    images, labels = fashion_mnist.file_names(split)
    pixels = torch.arange(num_images * 784).remainder(256).to(torch.uint8).view(num_images, 28, 28)
    (folder / images).write_bytes(idx_bytes(pixels))
    (folder / f"{labels}.gz").write_bytes(gzip.compress(idx_bytes(torch.arange(num_labels, dtype=torch.uint8))))


def test_a_split_is_read_from_files_plain_or_packed(tmp_path: Path) -> None:
    write_split(tmp_path, "train", num_images=3, num_labels=3)
    split = fashion_mnist.read_split(tmp_path, "train")
    assert split.images.shape == (3, 1, 28, 28)
    assert split.labels.tolist() == [0, 1, 2]
    assert split.image(1).flatten()[:3].tolist() == [16, 17, 18]  # 784 = 3 * 256 + 16


def test_a_folder_is_complete_with_all_four_files(tmp_path: Path) -> None:
    write_split(tmp_path, "train", num_images=1, num_labels=1)
    assert not fashion_mnist.is_complete(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte is missing, and so are .*\.gz"):
        fashion_mnist.read_split(tmp_path, "t10k")
    write_split(tmp_path, "t10k", num_images=1, num_labels=1)
    assert fashion_mnist.is_complete(tmp_path)


def test_images_and_labels_must_belong_together(tmp_path: Path) -> None:
    write_split(tmp_path, "train", num_images=3, num_labels=2)
    with pytest.raises(ValueError, match=r"labels must be .* \[3\]"):
        fashion_mnist.read_split(tmp_path, "train")
