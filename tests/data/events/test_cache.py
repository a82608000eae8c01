import errno
import functools
import hashlib
import json
import os
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest

from shortback.data.events import workers
from shortback.data.events.cache import Recording, cached_frames
from shortback.data.events.cache import _fingerprint as fingerprint
from shortback.data.events.formats import read_events
from shortback.data.events.frames import Frames, to_frames
from shortback.data.events.recording import MissingLibraryError
from shortback.errors import UserError
from tests.data.events.conftest import write_npz

SETTINGS = Frames(num_steps=3, size=4)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # by a Python of 3.12 or later


@pytest.fixture
def recordings(tmp_path):
    return [Recording(write_npz(tmp_path / f"{i}.npz", seed=i)) for i in range(5)]


def read(recording):
    return read_events(recording.path)


def made(recordings, tmp_path, settings=SETTINGS, read=read):
    return cached_frames(recordings, read, settings, root=tmp_path, folders=[tmp_path / "cache"], key="test")


def expected(recordings, settings=SETTINGS):
    frames = [to_frames(read(recording), settings)[0] for recording in recordings]
    return np.stack(frames).reshape(len(recordings), -1, settings.size, settings.size)


def by_processes(monkeypatch):
    """Two, which take one recording after the other."""
    monkeypatch.setattr(workers, "ITEMS_PER_PROCESS", 2)
    monkeypatch.setattr(workers, "CHUNK", 1)
    monkeypatch.setattr(workers, "num_cores", lambda: 2)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_frames_are_those_of_each_recording(recordings, tmp_path, monkeypatch, num_processes):
    if num_processes == 2:
        by_processes(monkeypatch)
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
    assert reason.startswith("1.npz: cannot be read as a NumPy file")
    assert not found.frames[1].any()
    assert found.frames[2].any()
    assert made(recordings, tmp_path).bad == found.bad


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (zlib.error("Error -3 while decompressing data"), "error: Error -3 while decompressing data"),
        (TypeError("only 0-dimensional arrays can be converted"), "TypeError: only 0-dimensional arrays"),
        (KeyError("t"), "KeyError: 't'"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "2.npz"), "No such file or directory"),
    ],
)
def test_whatever_a_reader_raises_is_the_reason_of_one_recording(recordings, tmp_path, error, reason):
    def raises(recording):
        if recording == recordings[2]:
            raise error
        return read(recording)

    found = made(recordings, tmp_path, read=raises)
    assert found.bad[0][0] == 2
    assert found.bad[0][1].startswith(f"2.npz: cannot be read: {reason}")
    assert found.frames[[0, 1, 3, 4]].flatten(1).any(1).all()


def test_damaged_bytes_within_an_archive_are_named(recordings, tmp_path):
    path = recordings[3].path
    np.savez_compressed(path, **{name: np.arange(5000) % 7 for name in "txyp"})
    content = bytearray(path.read_bytes())
    content[90:140] = bytes(50)
    path.write_bytes(content)
    ((index, reason),) = made(recordings, tmp_path).bad
    assert index == 3
    assert reason.startswith("3.npz: cannot be read")


def test_a_library_that_is_missing_is_not_remembered_of_the_files(recordings, tmp_path):
    def needs(recording):
        raise MissingLibraryError("HDF5 needs h5py")

    with pytest.raises(MissingLibraryError, match="HDF5 needs h5py"):
        made(recordings, tmp_path, read=needs)
    assert not made(recordings, tmp_path).bad


def fails_at_3(recording, *, error):
    if recording.path.name == "3.npz":
        raise error
    return read(recording)


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        (OSError(errno.EMFILE, "Too many open files"), r"3\.npz: cannot be read now \(Too many open files\)", OSError),
        (PermissionError(errno.EACCES, "Permission denied"), r"3\.npz: .*\(Permission denied\)", OSError),
        (MemoryError(), r"3\.npz: .*\(too little memory\)", OSError),
        (ImportError("libhdf5.so"), r"3\.npz: a library that reads it cannot be loaded \(libhdf5\.so\)", UserError),
    ],
)
def test_what_passes_is_raised_and_not_remembered_of_the_file(
    recordings, tmp_path, monkeypatch, error, message, kind, num_processes
):
    if num_processes == 2:
        by_processes(monkeypatch)

    with pytest.raises(kind, match=message):
        made(recordings, tmp_path, read=functools.partial(fails_at_3, error=error))
    (done,) = (tmp_path / "cache").glob("*.done")
    kept = [json.loads(line)[0] for line in done.read_text().splitlines()]
    assert 3 not in kept
    found = made(recordings, tmp_path)
    assert not found.bad
    np.testing.assert_array_equal(found.frames.numpy(), expected(recordings))


def test_a_link_that_leads_nowhere_is_named_and_found_when_it_is_mended(recordings, tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "later.npz")
    ((index, reason),) = made([recordings[0], Recording(link)], tmp_path).bad
    assert (index, reason) == (
        1,
        f"link.npz: cannot be read as a NumPy file: [Errno 2] No such file or directory: '{link}'",
    )
    write_npz(tmp_path / "later.npz", seed=8)
    assert not made([recordings[0], Recording(link)], tmp_path).bad


def test_a_link_to_itself_is_named(recordings, tmp_path):
    (tmp_path / "self.npz").symlink_to("self.npz")
    ((index, reason),) = made([recordings[0], Recording(tmp_path / "self.npz")], tmp_path).bad
    assert (index, "self.npz" in reason) == (1, True)


def test_frames_are_on_the_disk_before_they_are_said_to_be(recordings, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink().name))
    made(recordings, tmp_path)
    frames, description = synced
    assert frames.endswith(".partial")
    assert ".json." in description


KILLED = "3.npz"


def is_killed(recording):
    if recording.path.name == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(recording)


@pytest.mark.timeout(60)
def test_a_process_that_is_killed_is_said_and_what_was_made_is_kept(recordings, tmp_path, monkeypatch):
    by_processes(monkeypatch)
    with pytest.raises(
        OSError, match=r"^frames: a process was killed while it read .*/3\.npz: .* The frames made so far are kept"
    ):
        made(recordings, tmp_path, read=is_killed)
    (done,) = (tmp_path / "cache").glob("*.done")
    kept = {json.loads(line)[0] for line in done.read_text().splitlines()}
    assert len(kept) >= 2  # of the three before the fourth, the other process had one at most
    assert 3 not in kept
    begun = []

    def rest(recording):
        begun.append(recordings.index(recording))
        return read(recording)

    monkeypatch.setattr(workers, "num_cores", lambda: 1)
    np.testing.assert_array_equal(made(recordings, tmp_path, read=rest).frames.numpy(), expected(recordings))
    assert set(begun) == set(range(5)) - kept


def test_a_root_however_spelled_has_one_cache(recordings, tmp_path, monkeypatch):
    folders = [tmp_path / "cache"]
    monkeypatch.chdir(tmp_path.parent)
    for root in (tmp_path, Path(tmp_path.name), tmp_path.parent / "x" / ".." / tmp_path.name):
        (tmp_path.parent / "x").mkdir(exist_ok=True)
        there = [Recording(root / recording.path.name) for recording in recordings]
        cached_frames(there, read, SETTINGS, root=root, folders=folders, key="test")
        assert len(list(folders[0].glob("*.frames"))) == 1


def test_recordings_outside_the_root_are_told_apart(tmp_path, monkeypatch):
    one, other = (write_npz(tmp_path / name / "a.npz", seed=5) for name in ("one", "other"))
    os.utime(one, (1, 1))
    os.utime(other, (1, 1))
    other.write_bytes(one.read_bytes())
    os.utime(other, (1, 1))
    root, folders = tmp_path / "root", [tmp_path / "cache"]
    for folder in ("one", "other"):
        monkeypatch.chdir(tmp_path / folder)
        cached_frames([Recording(Path("a.npz"))], read, SETTINGS, root=root, folders=folders, key="test")
    assert len(list(folders[0].glob("*.frames"))) == 2


def test_sizes_of_sensors_are_remembered_and_a_cache_without_them_is_used(recordings, tmp_path):
    write_npz(recordings[2].path, seed=2, side=6)
    assert made(recordings, tmp_path).sizes == {(6, 6): 1, (8, 8): 4}
    assert made(recordings, tmp_path).sizes == {(6, 6): 1, (8, 8): 4}
    (known,) = (tmp_path / "cache").glob("*.json")
    known.write_text(json.dumps({"bad": [], "saturated": 0}))
    assert made(recordings, tmp_path, read=None).sizes == {}


def test_caches_of_before_there_was_keep_aspect_are_found():
    one = Frames(num_steps=3, size=4)
    before = {"num_steps": 3, "size": 4, "by": "count", "resize": "sum", "values": "count"}
    content = json.dumps([2, "nmnist", before, []])
    assert fingerprint([], one, "nmnist", Path()) == hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    other = Frames(num_steps=3, size=4, keep_aspect=True)
    assert fingerprint([], other, "nmnist", Path()) != fingerprint([], one, "nmnist", Path())


def test_half_a_cache_is_none(recordings, tmp_path):
    made(recordings, tmp_path)
    (frames,) = (tmp_path / "cache").glob("*.frames")
    frames.write_bytes(frames.read_bytes()[:-1])
    np.testing.assert_array_equal(made(recordings, tmp_path).frames.numpy(), expected(recordings))
    (known,) = (tmp_path / "cache").glob("*.json")
    known.write_text("{")
    np.testing.assert_array_equal(made(recordings, tmp_path).frames.numpy(), expected(recordings))
    assert json.loads(known.read_text()) == {"bad": [], "saturated": 0, "sizes": [[8, 8, 5]]}


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
