"""How many photographs a second does a core decode and crop, relative to torchvision's reference loader?"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from harness import DisagreementError, Settings, Side, compare, run
from shortback.allocator import keep_freed_memory
from shortback.data import Augmentation, BatchLoader, image_files, load_data, train_transform
from shortback.data.packed import PackedStrings
from shortback.data.shards import pack_folder

BATCH = 64
NAMES = 1_281_167  # as many as ImageNet's training images
WORKERS = 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def measure(settings: Settings) -> dict[str, Any]:
    """Time an epoch of 500 x 375 photographs, made into batches of 224 x 224 by one process with one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does; helps both sides
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photographs"
        size = _write(root, batches=1 if settings.quick else 4)
        pack_folder(root, Path(folder) / "shards", shard_bytes=4 * 2**20)
        loaders = {
            "folder": ("image_folder", root, image_files.simplejpeg),
            "folder, Pillow alone": ("image_folder", root, None),
            "shards": ("shards", Path(folder) / "shards", image_files.simplejpeg),
        }
        figures = compare(
            [
                Side("torchvision", lambda: _reference(root)),
                *(Side(name, lambda with_=with_: _ours(*with_)) for name, with_ in loaders.items()),
            ],
            gate=lambda: _same_pixels(root),
            over=[("torchvision", name) for name in loaders],
            title=f"{size['images']} photographs",
            **settings.timing(),
        )
    rates = {name: size["images"] / side["median"] for name, side in figures["sides"].items()}
    return {
        "photographs": size,
        "images_per_second": rates,
        "time": figures,
        "memory": _memory(NAMES // (50 if settings.quick else 1)),
    }


def _write(root: Path, *, batches: int) -> dict[str, float]:
    """Write images of noise in octaves, with detail at every scale and as many bytes as a photograph of ImageNet."""
    rng, sizes = np.random.default_rng(0), []
    for split, number in (("train", batches * BATCH), ("test", 4)):
        for i in range(number):
            pixels = np.zeros((375, 500, 3))
            for octave in range(1, 9):
                shape = max(2, 375 * 2**octave // 256), max(2, 500 * 2**octave // 256), 3
                coarse = Image.fromarray((rng.random(shape) * 255).astype(np.uint8))
                pixels += np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) * 0.85**octave
            pixels = (pixels - pixels.min()) / np.ptp(pixels) * 255
            path = root / split / "ab"[i % 2] / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
            sizes.append(path.stat().st_size)
    return {"images": batches * BATCH, "mean_bytes": statistics.mean(sizes)}


def _reference(root: Path) -> Callable[[], None]:
    """The pipeline of torchvision's `references/classification`: Pillow, crop, flip, conversion, normalisation."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(mean=MEAN, std=STD),
        ]
    )
    loader = DataLoader(ImageFolder(str(root / "train"), transform), batch_size=BATCH, shuffle=True)
    return lambda: _exhaust(loader)


def _ours(kind: str, root: Path, decoder: Any) -> Callable[[], None]:
    data, epochs = load_data(kind, root=root), count()
    loader = BatchLoader(
        data.train,
        transform=train_transform(Augmentation(resized_crop=True, flip=True), image_size=224),
        batch_size=BATCH,
        mean=MEAN,
        std=STD,
        seed=0,
        shuffle=True,
        drop_last=True,
    )

    def step() -> None:
        image_files.simplejpeg = decoder
        _exhaust(loader.epoch(next(epochs)))

    return step


def _exhaust(batches: Any) -> None:
    for _ in batches:
        pass


def _same_pixels(root: Path) -> dict[str, float]:
    paths = sorted((root / "train").rglob("*.jpg"))
    for path in paths:
        if not np.array_equal(image_files.read_image(path, channels=3), np.asarray(Image.open(path))):
            raise DisagreementError(f"{path.name} is decoded to other pixels than Pillow's")
    return {"compared": float(len(paths))}


def _memory(number: int) -> dict[str, Any]:
    """Measure the MiB that each worker copies by reading all names, from a list and from two arrays that hold them."""
    names = [f"train/n{i % 1000:08}/n{i % 1000:08}_{i:07}.JPEG" for i in range(number)]
    copied = {}
    for kind, each in (("list", names), ("arrays", PackedStrings.of(names))):
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        workers = [context.Process(target=_read_all, args=(each, queue)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        copied[kind] = sorted(queue.get() for _ in workers)
        for worker in workers:
            worker.join()
        print(f"  {kind}: {WORKERS} workers copied {sum(copied[kind]):.0f} MiB", flush=True)
    return {"names": number, "mib_by_worker": copied}


def _read_all(names: Sequence[str], queue: Any) -> None:
    before = _private()
    for name in names:
        assert name
    queue.put((_private() - before) / 1024)


def _private() -> int:
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv)


if __name__ == "__main__":
    main()
