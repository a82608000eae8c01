from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).parents[4] / "shared" / "data"


def write_npz(path, *, seed, num_events=40, side=8):
    """A recording of some events anywhere."""
    rng = np.random.default_rng(seed)
    x, y, p = rng.integers(0, side, num_events), rng.integers(0, side, num_events), rng.integers(0, 2, num_events)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, t=np.sort(rng.integers(0, 1000, num_events)), x=x, y=y, p=p, height=side, width=side)
    return path


@pytest.fixture
def event_folder(tmp_path):
    """Two classes, six and two recordings of each."""
    root = tmp_path / "recordings"
    for split, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("left", "right")):
            for i in range(count):
                write_npz(root / split / name / f"{i}.npz", seed=100 * label + 10 * (split == "test") + i)
    return root
