"""Image files: what they hold, and their pixels.

Pillow says what a file is. JPEG in RGB or grey is decoded by simplejpeg where it is installed (the extra `jpeg`), in
some three quarters of Pillow's time and to the same bytes; all else by Pillow. Reduced scales were tried and are not
worth it: libjpeg-turbo has quick code for 1/2 and 1/4 alone, and a crop to be resized to 224 pixels is seldom twice as
large. torchvision's decoder is as quick, and deprecated.
"""

import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from shortback.errors import UserError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_GREY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")


FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # and none that starts another program


def _refuse_others(path: str | Path) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for without end
        raise OSError("it is no regular file")


def _open(path: str | Path) -> Image.Image:
    _refuse_others(path)
    return Image.open(path, formats=FORMATS)


def is_rotated(path: str | Path) -> bool:
    """Whether a camera noted that the image is to be turned or mirrored (EXIF), which is not done here."""
    try:
        with _open(path) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # decoders raise nearly anything on damaged bytes, and those are reported elsewhere
        return False


class FileInfo(NamedTuple):
    """What the header of an image file says; sizes in pixels."""

    height: int
    width: int
    grey: bool


def read_info(path: str | Path) -> FileInfo:
    """Read the header alone.

    Raises:
        OSError: among other types of Pillow's decoders, if the file is no image.
    """
    with _open(path) as image:
        if image.mode in ("I", "F"):
            raise OSError("its pixels have 32 bits; convert it to 8 bits a channel")
        return FileInfo(image.height, image.width, image.mode in _GREY_MODES)


def read_image(path: str | Path, *, channels: int) -> np.ndarray:
    """Decode a file, as `decode_image` does its bytes.

    Raises:
        OSError: among other types of decoders, if the file is damaged or no image.
    """
    _refuse_others(path)
    return decode_image(Path(path).read_bytes(), channels=channels)


def decode_image(content: bytes, *, channels: int) -> np.ndarray:
    """Decode the bytes of an image file.

    Args:
        content: of the whole file.
        channels: 1 for grey, 3 for RGB; other modes are converted, transparency is dropped.

    Returns:
        uint8 [H, W, channels].

    Raises:
        OSError: among other types of decoders, if it is damaged or no image.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if simplejpeg is not None and image.format == "JPEG" and image.mode == ("L" if channels == 1 else "RGB"):
            try:
                return simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB")
            except ValueError:
                pass  # stray bytes, which Pillow passes over, or a file that is cut off, which it refuses
        if image.mode.startswith("I;16"):
            # Pillow would clip 16-bit grey to 255 instead of scaling it.
            high_bytes = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(high_bytes[..., None], channels, axis=2)
        if "transparency" in image.info:
            image = image.convert("RGBA")
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def as_image(pixels: np.ndarray) -> Tensor:
    """Decoded pixels, uint8 [H, W, C], as an image [C, H, W] that lies in memory as they do."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)


def check_image(path: str | Path) -> None:
    """Decode a file for nothing but the errors, as cheaply as its format allows.

    Raises:
        OSError: among other types of Pillow's decoders, if the file is damaged or no image.
    """
    with _open(path) as image:
        image.draft("RGB", (1, 1))  # JPEG skips most of the arithmetic, and still reads all of the file
        image.load()


class FileImages:
    """Images that are decoded each time they are read, so their sizes may differ and memory does not matter.

    Args:
        root: the folder that `files` are relative to.
        files: one path an image; of many, `PackedStrings`, which workers share.
        labels: int64 [len].
        channels: 1 for grey, 3 for RGB.
    """

    def __init__(self, root: Path, files: Sequence[str], labels: Tensor, *, channels: int) -> None:
        self.root = root
        self.files = files
        self.labels = labels
        self.channels = channels

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Tensor:
        """Decode one image: uint8 [C, H, W].

        Raises:
            ValueError: if the file has been damaged or removed since it was checked.
        """
        path = self.root / self.files[index]
        try:
            pixels = read_image(path, channels=self.channels)
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise UserError(f"{path} can no longer be read: {error}") from error
        return as_image(pixels)
