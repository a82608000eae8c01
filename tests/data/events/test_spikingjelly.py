"""A dataset of SpikingJelly's, trained on as it is; its frames are ours."""

import functools
import importlib
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import shortback as sb
from shortback.data.events import Events, Frames, to_frames

STEPS = 4


@pytest.fixture
def nmnist(tmp_path, monkeypatch):
    """Its N-MNIST class, over a folder of a few recordings as it unpacks them."""
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):  # for its speech data alone
        monkeypatch.setitem(sys.modules, name, MagicMock())
    pytest.importorskip("spikingjelly")
    module = importlib.import_module("spikingjelly.datasets.n_mnist")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for digit in range(10):
            folder = tmp_path / "events_np" / split / str(digit)
            folder.mkdir(parents=True)
            for i in range(2):
                x, y, p = rng.integers(0, 34, 203), rng.integers(0, 34, 203), rng.integers(0, 2, 203)
                np.savez(folder / f"{i}.npz", t=np.sort(rng.integers(0, 3000, 203)), x=x, y=y, p=p)
    return functools.partial(
        module.NMNIST, root=str(tmp_path), data_type="frame", frames_number=STEPS, split_by="number"
    )


def test_frames_are_the_same(nmnist, tmp_path):
    theirs = nmnist(train=True)
    recording = np.load(tmp_path / "events_np" / "train" / "0" / "0.npz")
    t, x, y, p = (recording[name] for name in "txyp")
    events = Events.checked(t=t, x=x, y=y, on=p, height=34, width=34, name="one")
    ours, _ = to_frames(events, Frames(num_steps=STEPS, size=34))
    np.testing.assert_array_equal(ours, theirs[0][0])


def test_it_is_trained_on_as_it_is(nmnist, tmp_path):
    def time_first(samples):
        x, y = default_collate(samples)
        return x.transpose(0, 1), y  # [N, T, 2, H, W] -> [T, N, 2, H, W]

    train, test = (
        DataLoader(nmnist(train=split), batch_size=8, shuffle=split, collate_fn=time_first) for split in (True, False)
    )
    neuron = functools.partial(sb.LIF, backend="reference")
    model = sb.create_model("resnet20", num_classes=10, num_steps=STEPS, in_channels=2, width=0.25, neuron=neuron)
    net = sb.attach(model, at="stages", sample=torch.zeros(STEPS, 2, 2, 34, 34))
    result = sb.training.fit(net, train, validation=test, epochs=1, folder=tmp_path / "run", lr=0.01)
    assert result.steps == 3
    assert len(list(net.heads)) == 2
