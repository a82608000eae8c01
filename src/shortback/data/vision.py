"""CIFAR-10, CIFAR-100 and Fashion-MNIST, loaded from disk, or downloaded with torchvision if allowed."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torchvision import datasets

from shortback.data import fashion_mnist
from shortback.data.images import ArrayImages, ImageData
from shortback.errors import UserError


@dataclass(frozen=True)
class _Cifar:
    """A CIFAR data set of torchvision, with the statistics of its training images in units of [0, 1]."""

    dataset: type[datasets.CIFAR10]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_CIFAR = {
    "cifar10": _Cifar(datasets.CIFAR10, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "cifar100": _Cifar(datasets.CIFAR100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
}


def data_root(root: str | Path | None) -> Path:
    """Return the folder of downloaded data: `root`, else `$SHORTBACK_DATA`, else `data` in the current folder."""
    return Path(root if root is not None else os.environ.get("SHORTBACK_DATA") or "data").expanduser()


def load_cifar(kind: str, *, root: str | Path | None = None, download: bool = False) -> ImageData:
    """Load CIFAR-10 or CIFAR-100, 50,000 training and 10,000 test images, [3, 32, 32], as unpacked by torchvision.

    Args:
        kind: `cifar10` or `cifar100`.
        root: the folder that holds `cifar-10-batches-py` or `cifar-100-python`; see `data_root`.
        download: fetch what is missing.

    Raises:
        FileNotFoundError: if it is missing and may not be downloaded.
        ValueError: if files are damaged or incomplete.
        OSError: if the download fails.
    """
    source, folder = _CIFAR[kind], data_root(root)
    files = folder / source.dataset.base_folder
    if download:
        _download(kind, lambda: source.dataset(folder, download=True), folder)
    elif not files.is_dir():
        names = [name for name, _ in [*source.dataset.train_list, *source.dataset.test_list]]
        raise _missing(kind, looked_in=[files], layout=[f"{files.name}/{name}" for name in names])
    try:
        with warnings.catch_warnings():
            # The files were pickled by a NumPy of 2009, about which some releases of NumPy 2.4 warn.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            train, test = (source.dataset(folder, train=train) for train in (True, False))
    except RuntimeError as error:
        raise UserError(
            f"the files of {kind} in {files} are damaged or incomplete: delete the folder and download it again, "
            f"for example with download=True"
        ) from error
    return ImageData(
        name=kind,
        classes=tuple(train.classes),
        train=_as_images(train),
        test=_as_images(test),
        mean=source.mean,
        std=source.std,
        in_channels=3,
        image_size=32,
    )


def load_fashion_mnist(*, root: str | Path | None = None, download: bool = False) -> ImageData:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images, [1, 28, 28].

    Args:
        root: the folder that holds the four idx files, plain or compressed, or torchvision's
            `FashionMNIST/raw` with them in it; see `data_root`.
        download: fetch what is missing.

    Raises:
        FileNotFoundError: if it is missing and may not be downloaded.
        ValueError: if files are damaged.
        OSError: if the download fails.
    """
    root = data_root(root)
    places = [root, root / "FashionMNIST" / "raw"]
    folder = next((place for place in places if fashion_mnist.is_complete(place)), None)
    if folder is None and download:
        folder = places[-1]
        _download("fashion_mnist", lambda: datasets.FashionMNIST(root, download=True), root)
    if folder is None:
        names = [name for split in fashion_mnist.SPLITS for name in fashion_mnist.file_names(split)]
        raise _missing("fashion_mnist", looked_in=places, layout=[f"{name}[.gz]" for name in names])
    train, test = (fashion_mnist.read_split(folder, split) for split in fashion_mnist.SPLITS)
    return ImageData(
        name="fashion_mnist",
        classes=fashion_mnist.CLASSES,
        train=train,
        test=test,
        mean=(0.2860,),
        std=(0.3530,),
        in_channels=1,
        image_size=28,
    )


def _as_images(dataset: datasets.CIFAR10) -> ArrayImages:
    # torchvision permutes the planes of the file to a view [len, H, W, C]; permuting it back copies nothing.
    return ArrayImages(torch.from_numpy(dataset.data).permute(0, 3, 1, 2), torch.tensor(dataset.targets))


def _download(kind: str, fetch: Callable[[], object], root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        # The processes of a run start together: the first downloads, the others wait and find the files.
        with FileLock(root / f".{kind}.lock"), warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            fetch()
    except (OSError, RuntimeError) as error:
        raise OSError(f"{kind} could not be downloaded to {root}: {error}") from error


def _missing(kind: str, *, looked_in: list[Path], layout: list[str]) -> FileNotFoundError:
    return FileNotFoundError(
        f"{kind} was not found: looked in {' and '.join(str(folder.absolute()) for folder in looked_in)}.\n"
        f"Expected, in the root folder:\n"
        + "".join(f"    {line}\n" for line in layout)
        + "Set root (or the environment variable SHORTBACK_DATA) to the folder that holds them, "
        "or allow the download: data.download=true in a recipe, download=True in Python."
    )
