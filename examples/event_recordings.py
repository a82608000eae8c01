"""Train on event-camera recordings, one folder per class: python examples/event_recordings.py [FOLDER]

FOLDER has train/<class>/<file> and test/<class>/<file> in any format of docs/events.md. Without one, recordings are
generated: a bar that moves left or right in front of a sensor of 32 x 32 pixels.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import shortback as sb
from shortback.data import BatchLoader
from shortback.data.events import Frames, load_event_folder
from shortback.training import evaluate, fit


def record(folder: Path, *, count: int, seed: int) -> None:
    """Write recordings as npz: time in microseconds, column, row, and whether the pixel became brighter."""
    rng = np.random.default_rng(seed)
    for name, direction in (("left", -1), ("right", 1)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            t = np.sort(rng.integers(0, 100_000, 2000))
            centre = 16 + direction * (t / 100_000 - 0.5) * 24 + rng.normal(0, 1.5)
            front = rng.random(2000) < 0.5  # the leading edge makes ON events, the trailing edge OFF
            x = np.clip(centre + direction * np.where(front, 2, -2) + rng.normal(0, 0.7, 2000), 0, 31)
            events = {"t": t, "x": x.astype(np.int16), "y": rng.integers(0, 32, 2000).astype(np.int16), "p": front}
            np.savez(folder / name / f"{number}.npz", height=32, width=32, **events)


if sys.argv[1:]:
    root = Path(sys.argv[1])
else:
    root = Path("recordings")
    record(root / "train", count=100, seed=0)
    record(root / "test", count=20, seed=1)

num_steps = 5
data = load_event_folder(root, frames=Frames(num_steps=num_steps, size=32))
settings = {"transform": None, "batch_size": 16, "mean": data.mean, "std": data.std, "seed": 0, "drop_last": False}
settings["num_steps"] = num_steps  # batches are sequences, [T, N, 2, H, W]
train = BatchLoader(data.train, shuffle=True, **settings)
test = BatchLoader(data.test, shuffle=False, **settings)

torch.manual_seed(0)
model = sb.create_model("vgg11", num_classes=len(data.classes), num_steps=num_steps, in_channels=2, width=0.125)
x, _ = next(iter(test.epoch(0)))
net = sb.attach(model, sample=x)
fit(net, train, epochs=3, lr=0.05, folder="runs/events")
model = sb.strip(net)
print(f"test accuracy {evaluate(model, test.epoch(0)).accuracy:.1%}")
