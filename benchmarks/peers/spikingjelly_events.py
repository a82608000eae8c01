"""SpikingJelly's readers of recordings, and its way from events to frames."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F

from peers import missing

try:
    import spikingjelly
except ModuleNotFoundError as error:
    raise missing("spikingjelly") from error

# Its datasets need torchaudio, for speech, which is not there in every installation, or is there for another torch.
_STUBS = {name: MagicMock() for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms")}
_STUBS = {name: stub for name, stub in _STUBS.items() if name not in sys.modules}
sys.modules.update(_STUBS)
from spikingjelly.datasets import cifar10_dvs, utils  # noqa: E402

for _name in _STUBS:
    del sys.modules[_name]

VERSION = getattr(spikingjelly, "__version__", "")


def read_aedat2(path: Path) -> dict[str, Any]:
    """A recording of CIFAR10-DVS: `t`, `x`, `y` and `p`."""
    return cifar10_dvs._load_origin_data(path)


def read_aedat3(path: Path) -> dict[str, Any]:
    """A recording of DVS128 Gesture: the same."""
    return utils.load_aedat_v3(path)


def to_frames(events: dict[str, Any], *, num_steps: int, size: int) -> np.ndarray:
    """Frames of equally many events at the sensor's 128 x 128, and then of another size, as its users make them."""
    frames = utils.integrate_events_by_fixed_frames_number(events, "number", num_steps, 128, 128)
    if size == 128:
        return frames
    return F.interpolate(torch.from_numpy(np.asarray(frames)).float(), size=(size, size), mode="area").numpy()
