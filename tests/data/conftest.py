"""Small image folders to read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImages = Callable[..., list[Path]]


@pytest.fixture
def write_images() -> WriteImages:
    """Write random images: (folder, count, size=(H, W), mode="RGB", suffix=".png", seed=0) -> their paths."""

    def write(
        folder: Path,
        count: int,
        *,
        size: tuple[int, int] = (8, 8),
        mode: str = "RGB",
        suffix: str = ".png",
        seed: int = 0,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng([seed, *folder.name.encode()])
        paths = [folder / f"{index:03d}{suffix}" for index in range(count)]
        for path in paths:
            Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode).save(path)
        return paths

    return write


@pytest.fixture
def image_root(tmp_path: Path, write_images: WriteImages) -> Path:
    """A folder of two classes, 6 and 4 training images, 2 and 2 test images, RGB 8 x 8."""
    root = tmp_path / "pets"
    for split, counts in (("train", {"cat": 6, "dog": 4}), ("test", {"cat": 2, "dog": 2})):
        for name, count in counts.items():
            write_images(root / split / name, count, seed=len(split))
    return root
