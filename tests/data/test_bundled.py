import importlib.util
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from shortback.data import ArrayImages
from shortback.data.bundled import load_bundled

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_bundled.py"
BUNDLED = Path(__file__).parents[2] / "src" / "shortback" / "data" / "bundled"
ORIGINAL = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package of that name installs it


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_bundled", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bundled_images_are_balanced() -> None:
    data = load_bundled()
    assert (data.in_channels, data.image_size, data.num_classes) == (1, 28, 10)
    assert isinstance(data.train, ArrayImages)
    assert data.train.images.shape == (6000, 1, 28, 28)
    assert torch.bincount(data.train.labels).tolist() == [600] * 10
    assert torch.bincount(data.test.labels).tolist() == [100] * 10


def test_the_first_images_are_those_of_fashion_mnist() -> None:
    # Its first labels, ankle boot, T-shirt, T-shirt, dress ..., and the sum of the first image's pixels.
    data = load_bundled()
    assert data.train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert data.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert int(data.train.image(0).sum()) == 76247


def test_the_statistics_are_those_of_the_training_images() -> None:
    data = load_bundled()
    assert isinstance(data.train, ArrayImages)
    pixels = data.train.images.double() / 255
    assert data.mean[0] == pytest.approx(float(pixels.mean()), abs=1e-4)
    assert data.std[0] == pytest.approx(float(pixels.std(correction=0)), abs=1e-4)


def test_the_files_are_small_and_quick_to_read() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 3_000_000
    start = time.process_time()
    load_bundled()
    assert time.process_time() - start < 1


def test_the_licence_is_beside_the_files() -> None:
    notice = (BUNDLED / "NOTICE").read_text()
    assert "MIT License" in notice
    assert "Copyright (c) 2017 Zalando SE" in notice


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_script_rebuilds_the_files_bit_for_bit(tmp_path: Path) -> None:
    load_script().build(ORIGINAL, tmp_path)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_bytes() for path in BUNDLED.glob("*.xz")}


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte is missing"):
        load_script().build(tmp_path, tmp_path / "out")
