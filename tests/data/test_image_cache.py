import errno
import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shortback.data import ArrayImages, Subset, image_cache, load_image_folder
from shortback.errors import UserError

CACHE = ".shortback-cache"


def cached(root: Path, suffix: str) -> Path:
    (path,) = (root / CACHE).glob(f"*{suffix}")
    return path


def pixels(root: Path) -> torch.Tensor:
    train = load_image_folder(root).train
    assert isinstance(train, ArrayImages)
    return train.images


def test_files_are_decoded_once(image_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_image_folder(image_root)
    monkeypatch.setattr(image_cache, "_build", lambda *_: pytest.fail("the cache was built again"))
    second = load_image_folder(image_root)
    assert isinstance(first.train, ArrayImages)
    assert isinstance(second.train, ArrayImages)
    assert torch.equal(first.train.images, second.train.images)
    assert (first.mean, first.std) == (second.mean, second.std)


def test_the_cache_holds_the_pixels_and_nothing_is_left_over(image_root: Path) -> None:
    load_image_folder(image_root)
    assert cached(image_root, ".raw").stat().st_size == 14 * 3 * 8 * 8
    assert sorted(path.suffix for path in (image_root / CACHE).iterdir()) == ["", ".json", ".raw"]


def test_a_changed_listing_makes_the_cache_stale(image_root: Path) -> None:
    before = pixels(image_root).clone()
    old = cached(image_root, ".raw").name
    path = image_root / "train" / "cat" / "000.png"
    stat = path.stat()
    path.write_bytes((image_root / "train" / "cat" / "001.png").read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = pixels(image_root)
    assert torch.equal(after[0], before[1])
    assert torch.equal(after[1:], before[1:])
    assert cached(image_root, ".raw").name != old  # and the old one is gone


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".json", b""),
        (".json", b'{"bad": []}'),
        (".json", b"[]"),
        (".json", b"\xff\xfe"),
        (".raw", b""),
        (".raw", b"\x01" * 14 * 3 * 8 * 8),
    ],
)
def test_a_damaged_cache_is_built_again(
    image_root: Path, suffix: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = pixels(image_root).clone()
    # A new file, as damage to the old one would reach the tensor that still maps it.
    path = cached(image_root, suffix)
    path.unlink()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(pixels(image_root), before)
    assert "built again" in caplog.text


def test_a_missing_half_is_built_again(image_root: Path) -> None:
    before = pixels(image_root).clone()
    cached(image_root, ".raw").unlink()
    assert torch.equal(pixels(image_root), before)


def test_leftovers_of_a_killed_process_are_removed(image_root: Path) -> None:
    (image_root / CACHE).mkdir()
    (image_root / CACHE / "abc.raw.123.tmp").write_bytes(b"half of it")
    load_image_folder(image_root)
    assert not list((image_root / CACHE).glob("*.tmp"))


def _load_in_process(root: Path, queue: "multiprocessing.Queue[int]") -> None:
    torch.set_num_threads(1)
    queue.put(int(pixels(root).sum()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # of Python 3.12
def test_processes_at_once_agree(image_root: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_load_in_process, args=(image_root, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    sums = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert sums == {int(pixels(image_root).sum())}


def test_a_folder_that_cannot_be_written_is_cached_for_the_user(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (image_root / CACHE).write_text("a file where the folder would be")
    load_image_folder(image_root)
    assert len(list((tmp_path / "user" / "shortback").glob("pets-*/*.raw"))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(image_root / CACHE))
    with pytest.raises(OSError, match=r"cannot be cached: none of .* set cache_dir to a writable folder"):
        load_image_folder(image_root)


def test_roots_that_share_a_cache_folder_do_not_mix(image_root: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy" / "pets"
    other.parent.mkdir()
    image_root.rename(other)
    image_root.mkdir()
    for split in ("train", "test"):
        (image_root / split).mkdir()
        (other / split / "cat").rename(image_root / split / "cat")
    cache = tmp_path / "cache"
    for root, size in ((image_root, 6), (other, 4)):
        assert len(load_image_folder(root, cache_dir=cache).train) == size
    assert len(list(cache.glob("pets-*/*.raw"))) == 2
    assert not (image_root / CACHE).exists()


def test_a_full_disk_is_said(image_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(image_cache._PixelWriter, "write", full)
        with pytest.raises(OSError, match=r"the disk is full: .* free some space, or give cache_dir") as caught:
            load_image_folder(image_root)
        assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in (image_root / CACHE).iterdir()] == ["lock"]
    assert len(load_image_folder(image_root).train) == 10


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_what_passes_is_raised_and_not_remembered_of_the_file(
    image_root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    usual = image_cache.read_image

    def fails(path: str, *, channels: int) -> np.ndarray:
        if path.endswith("train/cat/003.png"):
            raise OSError(number, os.strerror(number))
        return usual(path, channels=channels)

    monkeypatch.setattr(image_cache, "read_image", fails)
    for skip_bad in (False, True):
        with pytest.raises(OSError, match=rf"train/cat/003\.png: cannot be read now \({os.strerror(number)}\)"):
            load_image_folder(image_root, skip_bad=skip_bad)
    monkeypatch.setattr(image_cache, "read_image", usual)
    assert len(load_image_folder(image_root).train) == 10


@pytest.mark.parametrize("size", [(9, 8), (8, 8)])
def test_an_image_that_is_refused_by_its_header_is_not_decoded(image_root: Path, size: tuple[int, int]) -> None:
    """It is named, and neither its size nor its pixels matter to the others."""
    without = load_image_folder(image_root)
    Image.fromarray(np.full(size, 200, dtype=np.float32)).save(image_root / "train" / "cat" / "003.tif")
    with pytest.raises(UserError, match=r"1 of the 15 files .*\n.*train/cat/003\.tif: .*pixels are read as 32 bits"):
        load_image_folder(image_root)
    data = load_image_folder(image_root, skip_bad=True)
    assert (data.mean, data.std) == (without.mean, without.std)
    assert isinstance(data.train, Subset)
    assert isinstance(data.train.source, ArrayImages)
    images = data.train.source.images
    assert images.flatten(1).any(1).tolist() == [True] * 4 + [False] + [True] * 6
    assert isinstance(without.train, ArrayImages)
    assert torch.equal(images[data.train.indices], without.train.images)
