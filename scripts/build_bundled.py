"""Build the bundled data, the first images of every class of Fashion-MNIST, from the original files.

    python scripts/build_bundled.py FOLDER [--out FOLDER]

FOLDER holds the four files `train-images-idx3-ubyte.gz` and so on, as their authors publish them and as
Debian's package dataset-fashion-mnist installs them. The same input gives the same output, bit for bit.
"""

import argparse
import lzma
from pathlib import Path

import torch

from shortback.data import fashion_mnist
from shortback.data.idx import idx_bytes

NUM_PER_CLASS = {"train": 600, "t10k": 100}
BUNDLED = Path(__file__).parents[1] / "src" / "shortback" / "data" / "bundled"

# 2.63 MB. Predicting each pixel from its neighbours first, as PNG does, or transposing made it larger.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def build(source: Path, out: Path) -> None:
    """Write the four files of the bundled data.

    Args:
        source: folder of the original files, plain or compressed.
        out: folder to write to, created if missing.

    Raises:
        FileNotFoundError: a file of `source` is missing.
        ValueError: a file of `source` is damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    for split, count in NUM_PER_CLASS.items():
        images = fashion_mnist.read_split(source, split)
        members = [(images.labels == label).nonzero()[:count, 0] for label in range(len(fashion_mnist.CLASSES))]
        chosen = torch.cat(members).sort().values
        arrays = (images.images[chosen, 0], images.labels[chosen].to(torch.uint8))
        for name, array in zip(fashion_mnist.file_names(split), arrays, strict=True):
            packed = lzma.compress(idx_bytes(array), check=lzma.CHECK_CRC64, filters=_FILTERS)
            (out / f"{name}.xz").write_bytes(packed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="FOLDER", help="where the original files are")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="where to write (default: the package)")
    arguments = parser.parse_args()
    build(arguments.source, arguments.out)
