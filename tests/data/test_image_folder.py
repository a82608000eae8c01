import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shortback.data import ArrayImages, BatchLoader, Subset, eval_transform, load_data, load_image_folder
from shortback.data.image_files import FileImages

from .conftest import WriteImages


def test_images_labels_and_classes(image_root: Path) -> None:
    data = load_image_folder(image_root)
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0] * 6 + [1] * 4
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert (data.name, data.in_channels, data.image_size) == ("pets", 3, 8)
    with Image.open(image_root / "train" / "dog" / "002.png") as image:
        assert np.array_equal(data.train.image(8).numpy(), np.asarray(image).transpose(2, 0, 1))
    with Image.open(image_root / "test" / "cat" / "001.png") as image:
        assert np.array_equal(data.test.image(1).numpy(), np.asarray(image).transpose(2, 0, 1))


def test_statistics_are_those_of_the_training_images(image_root: Path) -> None:
    data = load_image_folder(image_root)
    pixels = torch.stack([data.train.image(index) for index in range(10)]).double() / 255
    assert data.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert data.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_images_without_contrast_can_be_normalised(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("L", (4, 4), 51).save(tmp_path / split / "a" / "a.png")
    data = load_image_folder(tmp_path)
    assert data.mean == pytest.approx((0.2,))
    assert data.std == (1 / 255,)


def test_val_stands_for_test(image_root: Path) -> None:
    (image_root / "test").rename(image_root / "val")
    assert len(load_image_folder(image_root).test) == 4


def test_folders_below_a_class_are_searched_and_hidden_files_passed_over(image_root: Path) -> None:
    images = image_root / "train" / "cat" / "images"
    images.mkdir()
    for path in (image_root / "train" / "cat").glob("*.png"):
        path.rename(images / path.name)
    (images / ".DS_Store").write_text("not an image")
    (image_root / "train" / ".git").mkdir()
    data = load_image_folder(image_root)
    assert (data.classes, len(data.train)) == (("cat", "dog"), 10)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("1", 1)])
def test_images_are_grey_if_all_are(tmp_path: Path, write_images: WriteImages, mode: str, channels: int) -> None:
    write_images(tmp_path / "train" / "a", 2, mode="L")
    write_images(tmp_path / "test" / "a", 1, mode=mode)
    data = load_image_folder(tmp_path)
    assert data.in_channels == len(data.mean) == channels
    assert data.train.image(0).shape == (channels, 8, 8)


def test_small_images_of_one_size_are_mapped_and_others_streamed(image_root: Path, write_images: WriteImages) -> None:
    assert isinstance(load_image_folder(image_root).train, ArrayImages)
    write_images(image_root / "train" / "dog", 1, size=(9, 8))
    data = load_image_folder(image_root)
    assert isinstance(data.train, FileImages)
    assert not list((image_root / ".shortback-cache").glob("*.raw"))
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.image_size == 8  # of the shorter sides, the median
    assert data.train.image(6).shape == (3, 9, 8)


@pytest.mark.parametrize(("side", "image_size"), [(64, 64), (65, 65), (300, 300)])
def test_large_images_are_streamed(tmp_path: Path, write_images: WriteImages, side: int, image_size: int) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / split / "a", 1, size=(side, side + 10 * (side > 64)), suffix=".jpg")
    data = load_image_folder(tmp_path)
    assert isinstance(data.train, ArrayImages if side == 64 else FileImages)
    assert data.image_size == image_size


def test_differing_sizes_are_brought_to_one(tmp_path: Path, write_images: WriteImages) -> None:
    for index, size in enumerate([(300, 400), (250, 240), (500, 260)]):
        write_images(tmp_path / "train" / f"class{index}", 1, size=size, suffix=".jpg")
    write_images(tmp_path / "test" / "class1", 1, size=(100, 100), suffix=".jpg")
    data = load_data("image_folder", root=tmp_path)
    assert data.image_size == 224
    small = load_data("image_folder", root=tmp_path, image_size=32)
    loader = BatchLoader(
        small.train,
        transform=eval_transform(image_size=small.image_size),
        batch_size=3,
        mean=small.mean,
        std=small.std,
        seed=0,
        shuffle=False,
        drop_last=False,
    )
    images, labels = next(loader.epoch(0))
    assert images.shape == (3, 3, 32, 32)
    assert labels.tolist() == [0, 1, 2]


def test_missing_folders_are_errors_with_the_layout(image_root: Path) -> None:
    layout = r"Expected:\n    .*/train/<class>/<image>\n    .*/test/<class>/<image>   \(or .*/val\)"
    with pytest.raises(FileNotFoundError, match=rf"pets/no does not exist. {layout}"):
        load_image_folder(image_root / "no")
    (image_root / "test").rename(image_root / "Test")
    with pytest.raises(FileNotFoundError, match=rf"no folder test \(or val\); it has 'Test', 'train'. {layout}"):
        load_image_folder(image_root)
    shutil.rmtree(image_root / "train")
    with pytest.raises(FileNotFoundError, match=rf"no folder train; it has 'Test'. {layout}"):
        load_image_folder(image_root)
    (image_root / "train").mkdir()
    (image_root / "test").mkdir()
    (image_root / "train" / "cat.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=rf"train has no class folders. {layout}"):
        load_image_folder(image_root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_empty_classes_are_named(image_root: Path, split: str) -> None:
    for name in ("eel", "fox"):
        (image_root / "train" / name).mkdir()
        shutil.copy(image_root / "train" / "cat" / "000.png", image_root / "train" / name)
        (image_root / split / name).mkdir(exist_ok=True)
        for path in (image_root / split / name).iterdir():
            path.unlink()
    with pytest.raises(ValueError, match=f"/{split} has 2 empty classes: 'eel', 'fox'"):
        load_image_folder(image_root)


def test_classes_without_training_images_are_named(image_root: Path, write_images: WriteImages) -> None:
    write_images(image_root / "test" / "emu", 1)
    with pytest.raises(ValueError, match=r"classes that are missing from .*/train: 'emu'.*train has 'cat', 'dog'"):
        load_image_folder(image_root)


def damage(root: Path) -> None:
    """Damage three of the fourteen files, each in another way."""
    cut = root / "train" / "cat" / "001.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    (root / "train" / "dog" / "notes.txt").write_text("not an image")
    (root / "test" / "dog" / "000.png").write_bytes(b"")


@pytest.mark.parametrize("streamed", [False, True])
def test_damaged_files_are_named_and_counted(image_root: Path, write_images: WriteImages, streamed: bool) -> None:
    if streamed:
        write_images(image_root / "train" / "fox", 1, size=(70, 70))
    damage(image_root)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ValueError, match="damaged or not images") as caught:
            load_image_folder(image_root)
        message = str(caught.value)
        assert message.startswith(f"3 of the {16 if streamed else 15} files in")
        assert [line.split(":")[0].strip() for line in message.splitlines()[1:4]] == [
            "train/cat/001.png",
            "train/dog/notes.txt",
            "test/dog/000.png",
        ]
        assert "skip_bad=True" in message


@pytest.mark.parametrize("streamed", [False, True])
def test_damaged_files_can_be_skipped(
    image_root: Path, write_images: WriteImages, streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clean = load_image_folder(image_root)
    kept = [clean.train.image(index) for index in (0, *range(2, 10))]
    if streamed:
        write_images(image_root / "train" / "fox", 1, size=(70, 70))
    damage(image_root)
    with caplog.at_level(logging.WARNING):
        data = load_image_folder(image_root, skip_bad=True)
    assert "3 of the" in caplog.text
    assert "are skipped" in caplog.text
    assert isinstance(data.train, Subset)
    assert data.train.labels.tolist() == [0] * 5 + [1] * 4 + [2] * streamed
    assert data.test.labels.tolist() == [0, 0, 1]
    assert all(torch.equal(data.train.image(index), image) for index, image in enumerate(kept))
    if not streamed:
        pixels = torch.stack(kept).double() / 255
        assert data.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)


def test_only_ten_damaged_files_are_named(image_root: Path) -> None:
    for index in range(12):
        (image_root / "train" / "cat" / f"bad{index:02d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="12 of the 26 files") as caught:
        load_image_folder(image_root)
    assert str(caught.value).count("cat/bad") == 10
    assert "... and 2 more" in str(caught.value)


def test_a_class_that_skipping_empties_is_an_error(image_root: Path) -> None:
    for path in (image_root / "test" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no file of these classes of .*/test can be read: 'dog'"):
        load_image_folder(image_root, skip_bad=True)


def test_a_dangling_link_is_a_damaged_file(image_root: Path) -> None:
    os.symlink("nowhere", image_root / "train" / "cat" / "link.png")
    with pytest.raises(ValueError, match=r"train/cat/link.png: FileNotFoundError"):
        load_image_folder(image_root)


def test_what_is_no_image_of_the_documented_formats_is_a_damaged_file(image_root: Path) -> None:
    """PostScript would start another program, and a pipe would be waited for without end."""
    folder = next((image_root / "train").iterdir())
    (folder / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    os.mkfifo(folder / "pipe.png")
    whole = next(folder.glob("*.png")).read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="3 of the") as refusal:
        load_image_folder(image_root)
    message = str(refusal.value)
    assert "page.eps: UnidentifiedImageError: cannot identify" in message
    assert "pipe.png: OSError: not a regular file" in message
    assert "half.png" in message
    assert "skip_bad=True in Python, -s data.skip_bad=true on the command line" in message


def test_sixteen_bits_are_read_by_their_range(tmp_path: Path) -> None:
    pixels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    read = FileImages(tmp_path, ("deep.png",), torch.tensor([0]), channels=1).image(0)[0].double()
    assert (read - torch.from_numpy(pixels / 257.0)).abs().max() <= 1


def test_a_camera_s_orientation_and_a_folder_not_used_are_said(
    image_root: Path, write_images: WriteImages, caplog: pytest.LogCaptureFixture
) -> None:
    folder = next((image_root / "train").iterdir())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    image = Image.open(next(folder.glob("*.png")))
    image.save(folder / "0turned.jpg", exif=exif)
    shutil.copytree(image_root / "test", image_root / "val")
    load_image_folder(image_root)
    assert "EXIF orientation" in caplog.text
    assert f"{image_root / 'val'} is not used" in caplog.text
