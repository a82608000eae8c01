import pytest
import torch

from shortback.data.events import Frames, load_event_folder
from shortback.data.events.cache import Recording
from shortback.data.events.source import split_hash
from shortback.errors import UserError

FRAMES = Frames(num_steps=3, size=4)


def test_a_folder_is_a_source_of_sequences(event_folder):
    data = load_event_folder(event_folder, frames=FRAMES)
    assert data.classes == ("left", "right")
    assert (len(data.train), len(data.test)) == (12, 4)
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    assert (data.in_channels, data.num_steps, data.image_size) == (2, 3, 4)
    assert data.batch_shape(5) == (3, 5, 2, 4, 4)
    assert data.train.image(0).shape == (6, 4, 4)
    assert int(data.train.image(0).sum()) == 40


def test_bad_recordings_are_named_or_left_out(event_folder, caplog):
    bad = event_folder / "train" / "left" / "3.npz"
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of the 16 recordings in .*\n.*3\.npz: cannot be read"):
        load_event_folder(event_folder, frames=FRAMES)
    data = load_event_folder(event_folder, frames=FRAMES, skip_bad=True)
    assert len(data.train) == 11
    assert torch.bincount(data.train.labels).tolist() == [5, 6]
    assert "are left out" in caplog.text


def test_a_class_that_is_missing_is_named(event_folder):
    for path in (event_folder / "test" / "right").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="there is no test recording of right"):
        load_event_folder(event_folder, frames=FRAMES)


def test_a_split_is_known_by_its_test_files(tmp_path):
    a, b = Recording(tmp_path / "a"), Recording(tmp_path / "b")
    assert split_hash([a, b]) == split_hash([b, a])
    assert split_hash([a]) != split_hash([b])
    assert len(split_hash([a])) == 8
