"""How fast are recordings of event cameras read, turned into frames, and loaded for training?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import DisagreementError, Settings, Side, compare, run
from peers import spikingjelly_events as spikingjelly
from shortback.allocator import keep_freed_memory
from shortback.data import ArrayImages, Augmentation, BatchLoader, train_transform
from shortback.data.events import Events, Frames, to_frames
from shortback.data.events.aedat2 import read_aedat2
from shortback.data.events.aedat3 import END_OF_HEADER, HEADER, read_aedat3
from workloads import Variant, Workload, training_side

FRAMES = Frames(num_steps=10, size=48)
NUM_EVENTS = 200_000  # about as many as a recording of CIFAR10-DVS has
WORK = Workload(model="resnet20", batch_size=64, num_steps=10, image_size=48, events=True)
BATCHES = 10  # loaded in a round
AUGMENTATIONS = {
    "flip, roll": Augmentation(flip=True, roll=5),
    "flip, roll, turn, shear, Cutout": Augmentation(flip=True, roll=5, rotate=15, shear=8, cutout=12),
}


def measure(settings: Settings) -> dict[str, Any]:
    """Time reading random events as CIFAR10-DVS and DVS128 Gesture store them, from the page cache, on one thread."""
    number = 2_000 if settings.quick else NUM_EVENTS
    threads = torch.get_num_threads()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        aedat2, aedat3 = Path(folder, "a.aedat"), Path(folder, "b.aedat")
        _write_aedat2(aedat2, number)
        _write_aedat3(aedat3, number)
        torch.set_num_threads(1)
        try:
            figures = {
                "AEDAT 2.0": _reading(settings, aedat2, read_dvs, spikingjelly.read_aedat2),
                "AEDAT 3.1": _reading(settings, aedat3, read_aedat3, spikingjelly.read_aedat3),
                "file to frames": _making(settings, aedat2),
            }
        finally:
            torch.set_num_threads(threads)
    sides = {
        f"{what}, {name}": number / side["median"]
        for what in ("AEDAT 2.0", "AEDAT 3.1")
        for name, side in figures[what]["sides"].items()
    }
    print("\n".join(f"  {name}  {rate / 1e6:.1f} million events/s" for name, rate in sides.items()), flush=True)
    return {
        "num_events": number,
        "spikingjelly": spikingjelly.VERSION,
        "events_per_second": sides,
        "time": figures,
        "loader": _loading(settings),
    }


def read_dvs(path: Path) -> Events:
    """Read a recording of CIFAR10-DVS with our reader."""
    return read_aedat2(path, lies_on_its_side=True)


def _reading(
    settings: Settings, path: Path, ours: Callable[[Path], Events], theirs: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    def gate() -> dict[str, float]:
        mine, other = ours(path), theirs(path)
        for name, values in {"t": mine.t, "x": mine.x, "y": mine.y, "p": mine.on}.items():
            if not np.array_equal(values, other[name]):
                raise DisagreementError(f"{path}: {name} of the events differ")
        return {"events": 0.0}

    sides = [Side("shortback", lambda: lambda: ours(path)), Side("spikingjelly", lambda: lambda: theirs(path))]
    return compare(sides, gate=gate, title=f"reading {path.name}", **settings.timing())


def _making(settings: Settings, path: Path) -> dict[str, Any]:
    """Time a file to its frames; the gate compares frames of the sensor's size, as libraries downsample differently."""

    def ours(frames: Frames = FRAMES) -> np.ndarray:
        return to_frames(read_dvs(path), frames)[0]

    def theirs(size: int = FRAMES.size) -> np.ndarray:
        return spikingjelly.to_frames(spikingjelly.read_aedat2(path), num_steps=FRAMES.num_steps, size=size)

    def gate() -> dict[str, float]:
        if not np.array_equal(ours(Frames(num_steps=FRAMES.num_steps, size=128)), theirs(128)):
            raise DisagreementError("the frames differ")
        return {"frames": 0.0}

    sides = [Side("shortback", lambda: ours), Side("spikingjelly", lambda: theirs)]
    return compare(sides, gate=gate, title="file to 10 frames of 48 x 48", **settings.timing())


def _loading(settings: Settings) -> dict[str, Any]:
    """Compare a training step with branches after every block with loading batches of frames, by augmentation."""
    work = Workload(model="resnet20", batch_size=4, num_steps=2, width=0.25, events=True) if settings.quick else WORK
    generator = torch.Generator().manual_seed(0)
    shape = (BATCHES * work.batch_size, work.num_steps * 2, work.image_size, work.image_size)
    frames = torch.poisson(torch.full(shape, 0.5), generator=generator).to(torch.uint8)
    images = ArrayImages(frames, torch.zeros(len(frames), dtype=torch.int64))
    loaders = {
        name: BatchLoader(
            images,
            transform=train_transform(augmentation, image_size=work.image_size),
            batch_size=work.batch_size,
            mean=(0.0, 0.0),
            std=(1 / 255, 1 / 255),
            seed=0,
            shuffle=True,
            drop_last=True,
            num_steps=work.num_steps,
        )
        for name, augmentation in AUGMENTATIONS.items()
    }
    compiled = "off" if settings.quick else "neuron"
    variant = Variant(device=settings.device, branches="blocks", compile=compiled)
    figures = compare(
        [
            training_side("training", work, variant),
            *(Side(name, lambda loader=loader: _load(loader)) for name, loader in loaders.items()),
        ],
        title=f"{work}, frames of {work.image_size} x {work.image_size}",
        **settings.timing(),
    )
    batches = {"training": 1, **dict.fromkeys(loaders, BATCHES)}
    rates = {name: times * work.batch_size / figures["sides"][name]["median"] for name, times in batches.items()}
    over = {name: rates[name] / rates["training"] for name in loaders}
    print("\n".join(f"  {name} over training  {ratio:.1f}" for name, ratio in over.items()), flush=True)
    return {
        "execution": variant.execution().describe(),
        "samples_per_second": rates,
        "loader_over_training": over,
        "time": figures,
    }


def _load(loader: BatchLoader) -> Callable[[], None]:
    """Each call loads a new epoch."""
    epochs = count()

    def step() -> None:
        for _ in islice(loader.epoch(next(epochs)), BATCHES):
            pass

    return step


def _write_aedat2(path: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    words = np.empty((number, 2), ">u4")
    words[:, 0] = rng.integers(0, 2**15, number)
    words[:, 1] = np.sort(rng.integers(0, 1_300_000, number))
    path.write_bytes(b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + words.tobytes())


def _write_aedat3(path: Path, number: int) -> None:
    """Write packets of some hundred events, as the camera's software does."""
    rng = np.random.default_rng(0)
    events = np.empty((number, 2), "<u4")
    x, y, on = rng.integers(0, 128, number), rng.integers(0, 128, number), rng.integers(0, 2, number)
    events[:, 0] = x << 17 | y << 2 | on << 1 | 1
    events[:, 1] = np.sort(rng.integers(0, 6_000_000, number))
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n" + END_OF_HEADER]
    for begin in range(0, number, 400):
        packet = events[begin : begin + 400]
        parts += [HEADER.pack(1, 0, 8, 4, 0, *[len(packet)] * 3), packet.tobytes()]
    path.write_bytes(b"".join(parts))


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device",))


if __name__ == "__main__":
    main()
