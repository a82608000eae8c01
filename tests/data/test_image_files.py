import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shortback.data.image_files import FileImages, check_image, decode_image, read_image, read_info

from .conftest import WriteImages


@pytest.mark.parametrize(
    ("mode", "grey"),
    [("L", True), ("1", True), ("LA", True), ("RGB", False), ("RGBA", False), ("P", False)],
)
def test_the_header_says_size_and_colour(tmp_path: Path, write_images: WriteImages, mode: str, grey: bool) -> None:
    (path,) = write_images(tmp_path, 1, size=(3, 5), mode=mode)
    assert read_info(path) == (3, 5, grey)
    assert read_image(path, channels=1).shape == (3, 5, 1)
    assert read_image(path, channels=3).shape == (3, 5, 3)


def test_pixels_are_those_that_were_written(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", channels=3), pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png", channels=1)[..., 0], pixels[..., 0])


def test_transparency_is_dropped(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert read_image(tmp_path / "a.png", channels=3).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_info(tmp_path / "a.png").grey
    assert read_image(tmp_path / "a.png", channels=1)[..., 0].tolist() == [[0, 1, 255]]
    assert read_image(tmp_path / "a.png", channels=3)[0, 1].tolist() == [1, 1, 1]


def test_pixels_of_32_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(OSError, match="32 bits"):
        read_info(tmp_path / "a.tiff")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_check_finds_what_is_cut_off(tmp_path: Path, write_images: WriteImages, suffix: str) -> None:
    whole, cut = write_images(tmp_path, 2, size=(64, 64), suffix=suffix)
    check_image(whole)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises((OSError, SyntaxError)):
        check_image(cut)


def test_images_are_decoded_when_they_are_read(tmp_path: Path, write_images: WriteImages) -> None:
    paths = [*write_images(tmp_path / "a", 1, size=(4, 6)), *write_images(tmp_path / "b", 1, size=(5, 3))]
    files = ("a/000.png", "b/000.png")
    images = FileImages(tmp_path, files, torch.tensor([0, 1]), channels=3)
    assert [list(images.image(index).shape) for index in range(len(images))] == [[3, 4, 6], [3, 5, 3]]
    expected = read_image(paths[1], channels=3).transpose(2, 0, 1)
    assert np.array_equal(images.image(1).numpy(), expected)
    paths[0].unlink()
    with pytest.raises(ValueError, match=r"a/000.png can no longer be read"):
        images.image(0)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 16), (37, 53), (375, 500)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_decoded_to_the_bytes_of_pillow(mode: str, size: tuple[int, int], subsampling: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    settings = {"subsampling": subsampling} if mode == "RGB" else {}
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", quality=85, **settings)
    for channels, wanted in ((1, "L"), (3, "RGB")):
        expected = np.asarray(Image.open(file).convert(wanted)).reshape(*size, channels)
        assert np.array_equal(decode_image(file.getvalue(), channels=channels), expected)


def test_jpeg_that_is_cut_off_is_not_decoded(write_images: WriteImages, tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1, size=(64, 64), suffix=".jpg")
    with pytest.raises((OSError, ValueError), match=r"[Pp]remature|truncated|broken"):
        decode_image(path.read_bytes()[:-200], channels=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_with_stray_bytes_is_decoded_as_by_pillow(
    write_images: WriteImages, tmp_path: Path, channels: int
) -> None:
    """The survey, which is Pillow's, lets such a file pass; training must not end at it."""
    pytest.importorskip("simplejpeg")
    (path,) = write_images(tmp_path, 1, size=(64, 64), suffix=".jpg", mode="L" if channels == 1 else "RGB")
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes(7) + whole[-2:])
    check_image(path)
    expected = np.asarray(Image.open(path)).reshape(64, 64, channels)
    assert np.array_equal(read_image(path, channels=channels), expected)
