"""The images that are shipped with the package, so that a first run needs no download.

The first 600 training and the first 100 test images of every class of Fashion-MNIST, in their original
order and lossless, in its own file format: `scripts/build_bundled.py` makes the files from the original
ones, and `NOTICE`, beside them, is the licence.
"""

from importlib import resources

from shortback.data import fashion_mnist
from shortback.data.images import ImageData

# Of the 6,000 training images; a test computes them again.
MEAN = (0.2869,)
STD = (0.3538,)


def load_bundled() -> ImageData:
    """The bundled part of Fashion-MNIST: 6,000 training and 1,000 test images, [1, 28, 28], 10 classes."""
    with resources.as_file(resources.files("shortback.data") / "bundled") as folder:
        train, test = (fashion_mnist.read_split(folder, split) for split in fashion_mnist.SPLITS)
    return ImageData(
        name="bundled",
        classes=fashion_mnist.CLASSES,
        train=train,
        test=test,
        mean=MEAN,
        std=STD,
        in_channels=1,
        image_size=28,
    )
