"""Fashion-MNIST on disk: four idx files with 28 x 28 grey images of clothing and their labels.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", 2017.
"""

from pathlib import Path

from torch import Tensor

from shortback.data.idx import read_idx
from shortback.data.images import ArrayImages

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SPLITS = ("train", "t10k")


def file_names(split: str) -> tuple[str, str]:
    """Return the names of the image file and the label file, without a compression suffix."""
    return f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"


def is_complete(folder: Path) -> bool:
    """Whether all four files exist, each plain or compressed (.gz, .xz)."""
    return all(_find(folder, name) is not None for split in SPLITS for name in file_names(split))


def read_split(folder: Path, split: str) -> ArrayImages:
    """Read the split `train` or `t10k`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or the two files differ in length.
    """
    images, labels = (_read(folder, name) for name in file_names(split))
    return ArrayImages(images.unsqueeze(1), labels)


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / f"{name}{suffix}" for suffix in ("", ".gz", ".xz"))
    return next((path for path in candidates if path.is_file()), None)


def _read(folder: Path, name: str) -> Tensor:
    path = _find(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder / name} is missing, and so are {name}.gz and {name}.xz")
    return read_idx(path)
