import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from shortback.data import ArrayImages, fashion_mnist, load_data
from shortback.data.idx import idx_bytes
from shortback.data.vision import data_root


def pixels(num: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(num).integers(0, 256, (num, *shape), dtype=np.uint8)


@pytest.fixture
def cifar_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIFAR-10 of 2 x 3 training and 2 test images, in files whose checksums torchvision is told."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: object) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    names = [f"class{index}" for index in range(10)]
    train = [
        write(f"data_batch_{index}", {"data": pixels(3, 3072) // index, "labels": [0, 9, index]}) for index in (1, 2)
    ]
    test = [write("test_batch", {"data": pixels(2, 3072), "labels": [4, 5]})]
    meta = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", test)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": meta[0], "md5": meta[1], "key": "label_names"})
    return tmp_path


def write_fashion_mnist(folder: Path, *, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, num in (("train", 4), ("t10k", 2)):
        images, labels = fashion_mnist.file_names(split)
        contents = {
            images: torch.from_numpy(pixels(num, 28, 28)),
            labels: torch.arange(num, dtype=torch.uint8),
        }
        for name, values in contents.items():
            data = idx_bytes(values)
            (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)


def test_cifar10_from_disk(cifar_root: Path) -> None:
    data = load_data("cifar10", root=cifar_root)
    assert isinstance(data.train, ArrayImages)
    assert data.train.images.shape == (6, 3, 32, 32)
    assert data.train.images.is_contiguous()
    assert data.train.labels.tolist() == [0, 9, 1, 0, 9, 2]
    assert data.test.labels.tolist() == [4, 5]
    # A row of the file is the red, the green and the blue plane.
    assert np.array_equal(data.train.image(0).numpy(), pixels(3, 3072)[0].reshape(3, 32, 32))
    assert data.classes == tuple(f"class{index}" for index in range(10))
    assert (data.in_channels, data.image_size) == (3, 32)


def test_a_damaged_file_is_an_error(cifar_root: Path) -> None:
    (cifar_root / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"files of cifar10 in .* are damaged or incomplete: delete the folder"):
        load_data("cifar10", root=cifar_root)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_1\n(.|\n)*cifar-10-batches-py/test_batch"),
        ("cifar100", "cifar-100-python/train\n(.|\n)*cifar-100-python/test"),
        ("fashion_mnist", r"train-images-idx3-ubyte\[.gz\]\n(.|\n)*t10k-labels-idx1-ubyte\[.gz\]"),
    ],
)
def test_missing_data_is_an_error_that_says_what_to_do(tmp_path: Path, kind: str, layout: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_data(kind, root=tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "download=True" in message
    assert "SHORTBACK_DATA" in message
    with pytest.raises(FileNotFoundError, match=layout):
        load_data(kind, root=tmp_path)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "fashion_mnist"])
def test_a_download_that_fails_is_an_error(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no network here")

    for dataset in (datasets.CIFAR10, datasets.FashionMNIST):
        monkeypatch.setattr(dataset, "download", refuse)
    with pytest.raises(OSError, match=f"{kind} could not be downloaded to .*: no network here"):
        load_data(kind, root=tmp_path / "new", download=True)


def test_what_is_there_is_not_downloaded(cifar_root: Path) -> None:
    assert len(load_data("cifar10", root=cifar_root, download=True).train) == 6


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_fashion_mnist_from_disk(tmp_path: Path, place: str, packed: bool) -> None:
    write_fashion_mnist(tmp_path / place, packed=packed)
    data = load_data("fashion_mnist", root=tmp_path)
    assert (len(data.train), len(data.test)) == (4, 2)
    assert np.array_equal(data.test.image(1)[0].numpy(), pixels(2, 28, 28)[1])
    assert data.classes[9] == "Ankle boot"


def test_fashion_mnist_is_downloaded_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(dataset: datasets.FashionMNIST) -> None:
        write_fashion_mnist(Path(dataset.raw_folder), packed=False)

    monkeypatch.setattr(datasets.FashionMNIST, "download", download)
    assert len(load_data("fashion_mnist", root=tmp_path / "new", download=True).train) == 4


def test_the_root_is_given_or_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHORTBACK_DATA", raising=False)
    assert data_root(None) == Path("data")
    monkeypatch.setenv("SHORTBACK_DATA", str(tmp_path))
    assert data_root(None) == tmp_path
    assert data_root("elsewhere") == Path("elsewhere")
