import pytest
import torch

from shortback.data import cache_folder, load_data
from shortback.data.events import Frames, load_event_folder
from shortback.data.events.cache import Recording
from shortback.data.events.formats import READERS
from shortback.data.events.source import split_hash
from shortback.errors import UserError

FRAMES = Frames(num_steps=3, size=4)
CACHE = ".shortback-cache"


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


def test_one_damaged_recording_of_a_kind_nobody_thought_of_is_left_out(event_folder, monkeypatch):
    def raises(path):
        raise IndexError("tuple index out of range")

    bad = [event_folder / "train" / name / "3.npz" for name in ("left", "right")]
    usual = READERS[".npz"]
    monkeypatch.setitem(READERS, ".npz", lambda path, sensor: raises(path) if path in bad else usual(path))
    with pytest.raises(UserError, match=r"2 of the 16 .*\n    train/left/3\.npz: cannot be read: IndexError: tuple"):
        load_event_folder(event_folder, frames=FRAMES)
    assert len(load_event_folder(event_folder, frames=FRAMES, skip_bad=True).train) == 10


def test_a_folder_that_cannot_be_written_is_cached_for_the_user(event_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (event_folder / CACHE).write_text("a file where the folder would be")
    load_event_folder(event_folder, frames=FRAMES)
    assert len(list((tmp_path / "user" / "shortback").glob("recordings-*/*.frames"))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(event_folder / CACHE))
    with pytest.raises(OSError, match=r"cannot be cached: none of .* set cache_dir to a writable folder"):
        load_event_folder(event_folder, frames=FRAMES)


def test_a_cache_in_a_folder_that_can_no_longer_be_written_is_used(event_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    load_event_folder(event_folder, frames=FRAMES)
    monkeypatch.setattr(cache_folder, "_is_writable", lambda folder: False)
    assert len(load_event_folder(event_folder, frames=FRAMES).train) == 12
    assert not (tmp_path / "user").exists()


def test_the_cache_can_be_elsewhere(event_folder, tmp_path):
    data = load_data("event_folder", root=event_folder, frames=FRAMES, cache_dir=tmp_path / "fast")
    assert len(data.train) == 12
    assert len(list((tmp_path / "fast").glob("recordings-*/*.frames"))) == 1
    assert not (event_folder / CACHE).exists()


def test_a_class_that_is_missing_is_named(event_folder):
    for path in (event_folder / "test" / "right").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="there is no test recording of right"):
        load_event_folder(event_folder, frames=FRAMES)
    assert not (event_folder / CACHE).exists()  # nothing was read for nothing


def test_folders_without_recordings_are_named(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "left").mkdir(parents=True)
    with pytest.raises(UserError, match="there is no training recording of left"):
        load_event_folder(tmp_path, frames=FRAMES)


def test_a_split_is_known_by_its_test_files(tmp_path):
    a, b = Recording(tmp_path / "a"), Recording(tmp_path / "b")
    assert split_hash([a, b], tmp_path) == split_hash([b, a], tmp_path)
    assert split_hash([a], tmp_path) != split_hash([b], tmp_path)
    assert len(split_hash([a], tmp_path)) == 8


def test_a_split_is_known_where_files_of_all_classes_have_the_same_names(tmp_path):
    def of(*names):
        return split_hash([Recording(tmp_path / name) for name in names], tmp_path)

    assert of("cat/1.npz", "dog/2.npz") != of("cat/2.npz", "dog/1.npz")
    other = split_hash([Recording(tmp_path / "x" / "cat" / "1.npz")], tmp_path / "x")
    assert of("cat/1.npz") == other  # wherever the folder lies
