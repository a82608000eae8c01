"""The images shipped with the package, so that a first run needs no download.

They are the first 600 training and the first 100 test images of every class of Fashion-MNIST, lossless, in
their original order and file format. `scripts/build_bundled.py` builds the files from the original ones;
`bundled/NOTICE` holds the licence.
"""

from importlib import resources

from shortback.data import fashion_mnist
from shortback.data.images import ImageData

# Statistics of the 6,000 training images; a test recomputes them.
MEAN = (0.2869,)
STD = (0.3538,)


def load_bundled() -> ImageData:
    """Load the bundled part of Fashion-MNIST: 6,000 training and 1,000 test images, [1, 28, 28], 10 classes."""
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
