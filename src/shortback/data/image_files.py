"""Reads the headers and pixels of image files.

Pillow identifies files. RGB and grey JPEG files are decoded by simplejpeg if it is installed (the extra `jpeg`), in
some three quarters of Pillow's time and to the same bytes; all others by Pillow. Decoding at a reduced scale was tried
and is not worth it: libjpeg-turbo has fast code for 1/2 and 1/4 only, and a crop to be resized to 224 pixels is seldom
twice as large. torchvision's decoder is as fast, but deprecated.
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

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # none whose decoder starts another program


def _refuse_others(path: str | Path) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would block forever
        raise OSError("not a regular file")


def _open(path: str | Path) -> Image.Image:
    _refuse_others(path)
    return Image.open(path, formats=FORMATS)


def is_rotated(path: str | Path) -> bool:
    """Whether EXIF metadata asks for the image to be rotated or mirrored, which Shortback does not do."""
    try:
        with _open(path) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # decoders raise nearly anything on damaged bytes; damage is reported elsewhere
        return False


class FileInfo(NamedTuple):
    """Size in pixels and colour of an image, from the header of its file."""

    height: int
    width: int
    grey: bool


def read_info(path: str | Path) -> FileInfo:
    """Read only the header of an image file.

    Raises:
        OSError: if the file is not an image; Pillow's decoders raise other types as well.
    """
    with _open(path) as image:
        if image.mode in ("I", "F"):
            raise OSError("its pixels are read as 32 bits; convert it to 8 bits per channel")
        return FileInfo(image.height, image.width, image.mode in _GREY_MODES)


def read_image(path: str | Path, *, channels: int) -> np.ndarray:
    """Read and decode an image file; see `decode_image`.

    Raises:
        OSError: if the file is damaged or not an image; decoders raise other types as well.
    """
    _refuse_others(path)
    return decode_image(Path(path).read_bytes(), channels=channels)


def decode_image(content: bytes, *, channels: int) -> np.ndarray:
    """Decode the bytes of an image file.

    Args:
        content: the bytes of the whole file.
        channels: 1 for grey, 3 for RGB; other modes are converted, and transparency is dropped.

    Returns:
        uint8 [H, W, channels].

    Raises:
        OSError: if the file is damaged or not an image; decoders raise other types as well.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if simplejpeg is not None and image.format == "JPEG" and image.mode == ("L" if channels == 1 else "RGB"):
            try:
                return simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB")
            except ValueError:
                pass  # stray bytes, which Pillow ignores, or a truncated file, which Pillow rejects
        if image.mode.startswith("I;16"):
            # Pillow would clip 16-bit grey to 255 instead of scaling it.
            high_bytes = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(high_bytes[..., None], channels, axis=2)
        if "transparency" in image.info:
            image = image.convert("RGBA")
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def as_image(pixels: np.ndarray) -> Tensor:
    """Permute decoded pixels, uint8 [H, W, C], to an image [C, H, W] with the same memory layout."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)


def check_image(path: str | Path) -> None:
    """Decode a file only to detect damage, as cheaply as its format allows.

    Raises:
        OSError: if the file is damaged or not an image; Pillow's decoders raise other types as well.
    """
    with _open(path) as image:
        image.draft("RGB", (1, 1))  # skips most of the arithmetic of JPEG, but still reads the whole file
        image.load()


class FileImages:
    """Images decoded from files on every read, so that their sizes may differ and memory does not limit their number.

    Args:
        root: the folder that `files` are relative to.
        files: one path per image; for many images, `PackedStrings`, which workers share.
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
            ValueError: if the file cannot be read, for example because it was damaged or removed after the check.
        """
        path = self.root / self.files[index]
        try:
            pixels = read_image(path, channels=self.channels)
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise UserError(f"{path} can no longer be read: {error}") from error
        return as_image(pixels)
