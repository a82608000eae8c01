"""Classify frames as they arrive, with a network that keeps its state: python examples/camera.py RUN [FOLDER]

RUN is the folder of a finished run. Frames are the pictures in FOLDER, sorted by name, or noise if it is not given;
replace `frames` with your camera.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

import shortback as sb
from shortback.runs.evaluate import load_run


def frames(folder: Path | None, size: int, channels: int) -> Iterator[torch.Tensor]:
    """Yield pictures `[C, H, W]` in [0, 1]."""
    for path in sorted(folder.iterdir()) if folder else [None] * 20:
        if path is None:
            yield torch.rand(channels, size, size)
            continue
        picture = Image.open(path).convert("RGB" if channels == 3 else "L").resize((size, size))
        yield F.to_dtype(F.to_image(picture), torch.float32, scale=True)


def main() -> None:
    run, model = load_run(Path(sys.argv[1]))
    source = run.splits.source
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (source.mean, source.std))
    folder = Path(sys.argv[2]) if sys.argv[2:] else None
    stream, state = sb.stream(model), None
    with torch.no_grad():
        for number, frame in enumerate(frames(folder, source.image_size, len(source.mean))):
            if number % model.num_steps == 0:
                state = None  # a new decision every `num_steps` frames
            started = time.perf_counter()
            logits, state = stream((frame.unsqueeze(0) - mean) / std, state)
            confidence, index = logits.softmax(1).max(1)
            took = 1e3 * (time.perf_counter() - started)
            print(f"frame {number}: {source.classes[int(index)]} {float(confidence):.0%}, {took:.1f} ms")


if __name__ == "__main__":
    main()
