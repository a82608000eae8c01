import errno
import json
import os

import numpy as np
import pytest

from shortback.data.events import cache
from shortback.data.events.cache import Recording, cached_frames
from shortback.data.events.formats import read_events
from shortback.data.events.frames import Frames, to_frames
from tests.data.events.conftest import write_npz

SETTINGS = Frames(num_steps=3, size=4)


@pytest.fixture
def recordings(tmp_path):
    return [Recording(write_npz(tmp_path / f"{i}.npz", seed=i)) for i in range(5)]


def read(recording):
    return read_events(recording.path)


def made(recordings, tmp_path, settings=SETTINGS, read=read):
    return cached_frames(recordings, read, settings, folder=tmp_path / "cache", key="test")


def expected(recordings, settings=SETTINGS):
    frames = [to_frames(read(recording), settings)[0] for recording in recordings]
    return np.stack(frames).reshape(len(recordings), -1, settings.size, settings.size)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_frames_are_those_of_each_recording(recordings, tmp_path, monkeypatch, num_processes):
    monkeypatch.setattr(cache, "WORTH_PROCESSES", 2 if num_processes == 2 else 64)
    monkeypatch.setattr(cache, "num_cores", lambda: num_processes)
    found = made(recordings, tmp_path)
    np.testing.assert_array_equal(found.frames.numpy(), expected(recordings))
    assert (found.bad, found.saturated) == ([], 0)


def test_the_second_time_nothing_is_read(recordings, tmp_path):
    first = made(recordings, tmp_path).frames.clone()

    def fails(recording):
        raise AssertionError(recording)

    np.testing.assert_array_equal(made(recordings, tmp_path, read=fails).frames, first)


def test_other_settings_or_files_are_another_cache(recordings, tmp_path):
    made(recordings, tmp_path)
    other = Frames(num_steps=2, size=4)
    np.testing.assert_array_equal(made(recordings, tmp_path, other).frames.numpy(), expected(recordings, other))
    write_npz(recordings[0].path, seed=99)
    os.utime(recordings[0].path, (1, 1))
    np.testing.assert_array_equal(made(recordings, tmp_path).frames.numpy(), expected(recordings))


def test_a_bad_recording_is_named_and_0(recordings, tmp_path):
    recordings[1].path.write_bytes(b"nothing")
    found = made(recordings, tmp_path)
    ((index, reason),) = found.bad
    assert index == 1
    assert "1.npz: cannot be read" in reason
    assert not found.frames[1].any()
    assert found.frames[2].any()
    assert made(recordings, tmp_path).bad == found.bad


def test_half_a_cache_is_none(recordings, tmp_path):
    made(recordings, tmp_path)
    (frames,) = (tmp_path / "cache").glob("*.frames")
    frames.write_bytes(frames.read_bytes()[:-1])
    np.testing.assert_array_equal(made(recordings, tmp_path).frames.numpy(), expected(recordings))
    (known,) = (tmp_path / "cache").glob("*.json")
    known.write_text("{")
    np.testing.assert_array_equal(made(recordings, tmp_path).frames.numpy(), expected(recordings))
    assert json.loads(known.read_text()) == {"bad": [], "saturated": 0}


@pytest.mark.parametrize("lines", [3, 4, 5])
def test_a_cache_that_was_stopped_goes_on(recordings, tmp_path, lines):
    """Stopped by the signal of a terminal in the fourth recording, or with the record of what is done cut off."""
    seen = []

    def stops(recording):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(recording)
        return read(recording)

    with pytest.raises(KeyboardInterrupt):
        made(recordings, tmp_path, read=stops)
    assert not list((tmp_path / "cache").glob("*.frames"))
    (done,) = (tmp_path / "cache").glob("*.done")
    assert done.read_text().count("\n") == 3
    if lines == 4:
        done.write_text(done.read_text() + "[3, nu")
    if lines == 5:
        done.write_text(done.read_text() + "nothing\n")

    def rest(recording):
        assert lines == 5 or recording in recordings[3:]
        return read(recording)

    np.testing.assert_array_equal(made(recordings, tmp_path, read=rest).frames.numpy(), expected(recordings))
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".frames", ".json", ".lock"]


def test_a_full_disk_is_said_and_leaves_nothing(recordings, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"the disk is full: frames cannot be written in .*cache; free some space"):
        made(recordings, tmp_path)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["frames.lock"]
