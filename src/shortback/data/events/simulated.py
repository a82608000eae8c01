"""A simulated event camera that moves in front of the bundled images, for a first try without a download."""

from __future__ import annotations

import functools
import itertools
from importlib import resources
from pathlib import Path

import numpy as np

from shortback.data.bundled import load_bundled
from shortback.data.events.cache import Recording
from shortback.data.events.frames import Frames
from shortback.data.events.recording import Events
from shortback.data.events.source import Labelled, make_source
from shortback.data.images import ImageData
from shortback.files import user_cache

SIDE = 34  # of the sensor, around images of 28 x 28
THRESHOLD = 0.3  # change of log brightness that triggers an event
DARK = 0.1  # added to the brightness, in units of [0, 1]
CORNERS = ((0.0, 0.0), (-2.5, 5.0), (-5.0, 0.0), (0.0, 0.0))  # of the path, a triangle: pixels down and to the right
MARGIN = 10  # of darkness around a picture, in pixels
SUBSTEPS, SUBSTEP = 16, 6000  # steps between corners, and microseconds per step


def load_simulated_events(*, frames: Frames, cache_dir: Path | None = None) -> ImageData:
    """Load the bundled part of Fashion-MNIST, 6,000 training and 1,000 test images, as a moving camera might see it.

    Nothing here is recorded: a pixel fires for every step of 0.3 that the logarithm of its brightness goes up or down,
    without noise or delay, while the camera moves along a triangle as it did for N-MNIST.
    """
    images = load_bundled()
    with resources.as_file(resources.files("shortback.data") / "bundled") as folder:
        train, test = (
            Labelled([Recording(folder / name, i) for i in range(len(part))], part.labels.tolist())
            for name, part in (("train-images-idx3-ubyte.xz", images.train), ("t10k-images-idx3-ubyte.xz", images.test))
        )
        return make_source(
            "simulated_events",
            classes=images.classes,
            train=train,
            test=test,
            read=_read,
            frames=frames,
            root=user_cache(),
            key=f"simulated {THRESHOLD} {SUBSTEPS} {CORNERS}",
            skip_bad=False,
            cache_dir=cache_dir,
            sensor=(SIDE, SIDE),
            size_source="simulated",
        )


def simulate(image: np.ndarray) -> Events:
    """Simulate the events of a picture, uint8 `[28, 28]`."""
    levels = np.log(_seen_on_the_way(image) + DARK) / THRESHOLD
    number = np.zeros(levels.shape, np.int8)
    seen = levels[0].copy()  # level of each pixel at its last event
    for told, level in zip(number, levels, strict=True):
        new = np.trunc(level - seen)
        seen += new
        told[:] = new
    step, row, column = np.nonzero(number)
    each = number[step, row, column]
    t, y, x, on = (np.repeat(part, np.abs(each)) for part in (step * SUBSTEP, row, column, each > 0))
    return Events.checked(t=t, x=x, y=y, on=on, height=SIDE, width=SIDE, name="a simulated recording")


def _seen_on_the_way(image: np.ndarray) -> np.ndarray:
    """The brightness in [0, 1] of every sensor pixel along the path, `[places, SIDE, SIDE]`, interpolated linearly."""
    ways = itertools.pairwise(CORNERS)
    places = [np.add(a, np.subtract(b, a) * i / SUBSTEPS) for a, b in ways for i in range(SUBSTEPS)]
    whole, part = np.divmod(np.stack([*places, CORNERS[-1]]) + MARGIN - 3, 1)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image / 255.0, MARGIN), (SIDE + 1, SIDE + 1))
    seen = windows[tuple(whole.astype(int).T)]
    down, right = part.T[..., None, None]
    seen = seen[:, :-1] * (1 - down) + seen[:, 1:] * down
    return seen[:, :, :-1] * (1 - right) + seen[:, :, 1:] * right


@functools.lru_cache(maxsize=2)
def _images(name: str) -> np.ndarray:
    images = load_bundled()
    part = images.train if name.startswith("train") else images.test
    return np.stack([part.image(i)[0].numpy() for i in range(len(part))])


def _read(recording: Recording) -> Events:
    return simulate(_images(Path(recording.path).name)[recording.part])
