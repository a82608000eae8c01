import hashlib
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from shortback.cli import app
from shortback.data import load_data
from shortback.data.image_files import decode_image
from shortback.data.shards import load_shards, pack_folder


def test_every_image_is_there_once_with_its_label(folder, packed):
    images, shards = load_data("image_folder", root=folder), load_shards(packed)
    assert (shards.classes, shards.mean, shards.std) == (images.classes, images.mean, images.std)
    assert (shards.in_channels, shards.image_size) == (images.in_channels, images.image_size)
    for one, other in ((images.train, shards.train), (images.test, shards.test)):

        def contents(split):
            return Counter((split.image(i).numpy().tobytes(), int(split.labels[i])) for i in range(len(split)))

        assert contents(one) == contents(other)
    for i in range(len(images.test)):  # the test images in the order of the folder
        assert torch.equal(images.test.image(i), shards.test.image(i))


def test_a_shard_is_a_tar_file_of_images_and_labels(packed):
    shards = load_shards(packed)
    seen = 0
    for path in sorted(packed.glob("train-*.tar")):
        labels = set()
        with tarfile.open(path) as tar:
            members = iter(tar)
            for image, label in zip(members, members, strict=True):
                assert image.name.startswith(f"{seen:08d}.")
                assert label.name == f"{seen:08d}.cls"
                content = tar.extractfile(image).read()
                assert (decode_image(content, channels=3) == shards.train.image(seen).permute(1, 2, 0).numpy()).all()
                assert int(tar.extractfile(label).read()) == shards.train.labels[seen]
                labels.add(int(shards.train.labels[seen]))
                seen += 1
        assert labels == {0, 1}  # mixed
    assert seen == len(shards.train) == 40


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_webdataset_reads_them(packed):
    wds = pytest.importorskip("webdataset")
    paths = [str(path) for path in sorted(packed.glob("train-*.tar"))]
    samples = list(wds.WebDataset(paths, shardshuffle=False, empty_check=False).decode("rgb8"))
    shards = load_shards(packed)
    assert len(samples) == len(shards.train)
    for i, sample in enumerate(samples):
        (pixels,) = (sample[name] for name in ("jpg", "png", "jpeg") if name in sample)
        assert (shards.train.image(i).permute(1, 2, 0).numpy() == pixels).all()
        assert sample["cls"] == shards.train.labels[i]


def test_the_same_folder_gives_the_same_bytes(folder, packed, tmp_path):
    pack_folder(folder, tmp_path / "again", shard_bytes=40_000)
    for path in packed.iterdir():
        again = tmp_path / "again" / path.name
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()


def test_shards_are_as_large_as_asked(folder, packed, tmp_path):
    sizes = [path.stat().st_size for path in sorted(packed.glob("train-*.tar"))]
    assert len(sizes) > 4
    assert min(sizes[:-1]) >= 40_000
    pack_folder(folder, tmp_path / "one", shard_bytes=2**30)
    assert len(list((tmp_path / "one").glob("*.tar"))) == 2


def test_what_cannot_be_packed_is_refused(folder, packed, tmp_path):
    def pack(*arguments):
        return CliRunner().invoke(app, ["data", "pack", *map(str, arguments)])

    result = pack(folder, packed)
    assert (result.exit_code, "has files in it" in result.stderr) == (2, True)
    (folder / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    result = pack(folder, tmp_path / "new")
    assert (result.exit_code, "broken.jpg" in result.stderr) == (2, True)
    assert not (tmp_path / "new").exists()
    result = pack(folder, tmp_path / "new", "--skip-bad", "--shard-mb", "0.04")
    assert result.exit_code == 0
    assert "shards of pets" in result.stdout
    assert len(load_shards(tmp_path / "new").train) == 40


@pytest.mark.parametrize("name", ["x." + 120 * "y", "x.cls", "x", "x.", "x.\udce9"])
def test_odd_suffixes_are_replaced(folder, tmp_path, name):
    odd = folder / "train" / "cat" / name
    (folder / "train" / "cat" / "0.with.dots.jpg").rename(odd)
    pack_folder(str(folder), str(tmp_path / "odd"))
    data = load_shards(str(tmp_path / "odd"))
    assert sum(suffix == ".image" for suffix in data.train.places.suffixes) == 1
    with tarfile.open(next((tmp_path / "odd").glob("train-*.tar"))) as tar:
        assert all(Path(name).suffix for name in tar.getnames())  # without one, WebDataset passes a member over
    assert len(data.train) == 40
