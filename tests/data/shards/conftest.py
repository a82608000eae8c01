"""A folder of images of two classes, and the shards it was packed into."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortback.data.shards import pack_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root, rng = tmp_path / "pets", np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 3)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (70 + i % 3, 66, 3), dtype=np.uint8)
                suffix = ("jpg", "png", "JPEG")[i % 3]
                Image.fromarray(pixels).save(root / split / label / f"{i}.with.dots.{suffix}")
    return root


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    pack_folder(folder, tmp_path / "shards", shard_bytes=40_000)
    return tmp_path / "shards"
