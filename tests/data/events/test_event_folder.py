import os
import re
import shutil

import numpy as np
import pytest

from shortback.data.events import Frames, load_event_folder, read_events, to_frames
from shortback.errors import UserError
from tests.data.events.conftest import write_npz
from tests.data.events.test_nmnist import file_of

FRAMES = Frames(num_steps=2, size=8)
SIDES = {"corner": 16, "whole": 64}


@pytest.fixture
def unsaid(tmp_path):
    """Recordings of a sensor of 64 x 64 whose files do not say so; of one class events are in a corner alone."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, side in SIDES.items():
            folder = tmp_path / "unsaid" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                x, y = (np.append(rng.integers(0, side, 299), side - 1) for _ in range(2))
                np.savez(folder / f"{number}.npz", t=np.arange(300), x=x, y=y, p=np.ones(300))
    return tmp_path / "unsaid"


def test_formats_may_be_mixed(event_folder, tmp_path, caplog):
    file_of(tmp_path, (1, 2, 1, 5)).rename(event_folder / "train" / "left" / "z.bin")
    data = load_event_folder(str(event_folder), frames=FRAMES)
    assert len(data.train) == 13
    assert data.sensor == (
        "height 8, width 8 in 16 recordings; height 34, width 34 in 1 recording (as the files or their formats say)"
    )
    assert "come from sensors of several sizes: height 8, width 8 in 16 recordings" in caplog.text


def test_what_is_wrong_with_a_folder_is_named(event_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no folder train; it has recordings"):
        load_event_folder(tmp_path, frames=FRAMES)
    (event_folder / "train" / "left" / "a.png").write_bytes(b"")
    match = r"1 file does not end like recordings in .*train, .* left/a\.png(.|\n)*np\.savez\(.*height=480, width=640"
    with pytest.raises(UserError, match=match):
        load_event_folder(event_folder, frames=FRAMES)
    (event_folder / "train" / "left" / "a.png").unlink()
    (event_folder / "test" / "up").mkdir()
    with pytest.raises(UserError, match=r"has classes that .*train lacks: up"):
        load_event_folder(event_folder, frames=FRAMES)
    (tmp_path / "bare" / "train").mkdir(parents=True)
    (tmp_path / "bare" / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"bare/train has no class folders"):
        load_event_folder(tmp_path / "bare", frames=FRAMES)
    shutil.rmtree(event_folder / "test")
    with pytest.raises(FileNotFoundError, match=r"has no folder test \(or val\); it has train"):
        load_event_folder(event_folder, frames=FRAMES)


def test_val_is_a_name_of_test(event_folder):
    (event_folder / "test").rename(event_folder / "val")
    assert len(load_event_folder(event_folder, frames=FRAMES).test) == 4


def test_a_val_beside_test_is_said_not_to_be_used(event_folder, caplog):
    shutil.copytree(event_folder / "test", event_folder / "val")
    assert len(load_event_folder(event_folder, frames=FRAMES).test) == 4
    assert "val is not used: a part of train is set aside for validation" in caplog.text


@pytest.mark.parametrize("names", [("Train", "Test"), ("train", "Test"), ("Train", "val")])
def test_parts_of_a_split_are_no_classes(event_folder, names):
    for old, new in zip(("train", "test"), names, strict=True):
        (event_folder / old).rename(event_folder / new)
    there = ", ".join(sorted(names))
    with pytest.raises(UserError, match=rf"has {there}, which are parts of a split.*data\.kind=nmnist"):
        load_event_folder(event_folder, frames=FRAMES, split="fifth")
    with pytest.raises(FileNotFoundError, match=r"rename them, or write data\.kind=nmnist if it is N-MNIST"):
        load_event_folder(event_folder, frames=FRAMES)


def test_a_fifth_is_of_folders_of_classes(event_folder, caplog):
    shutil.rmtree(event_folder / "test")
    with pytest.raises(UserError, match=r"has train, which is a part of a split.*otherwise set data\.root"):
        load_event_folder(event_folder, frames=FRAMES, split="fifth")
    (event_folder / "train").rename(event_folder / "gestures")
    with pytest.raises(UserError, match=r"has a single folder with folders of recordings in it, .* gestures/left, but"):
        load_event_folder(event_folder, frames=FRAMES, split="fifth")
    shutil.copytree(event_folder / "gestures", event_folder / "other")  # as folders of persons in those of classes
    data = load_event_folder(event_folder, frames=FRAMES, split="fifth")
    assert (data.classes, len(data.train) + len(data.test)) == (("gestures", "other"), 24)
    assert re.search(r"the classes are gestures, other; .*gestures/left is in one of them", caplog.text)
    flat = event_folder / "gestures"
    (flat / "left").rename(flat / "train")  # a class may be called so
    assert load_event_folder(flat, frames=FRAMES, split="fifth").classes == ("right", "train")


def test_the_sensor_is_one_for_all_recordings_and_never_guessed_for_each(unsaid):
    data = load_event_folder(unsaid, frames=FRAMES, sensor=(64, 64))
    assert data.sensor == "height 64, width 64 (as data.sensor says)"
    corner, whole = (data.train.image(index).sum(0) for index in (0, 3))
    assert int(corner[:2, :2].sum()) == int(corner.sum()) == 300  # 16 of 64 pixels are 2 of 8
    assert int((whole > 0).sum()) > 50


def test_a_sensor_that_nothing_says_is_asked_for(unsaid):
    match = (
        r"0\.npz: does not say .* -s data\.sensor=\[HEIGHT,WIDTH\] on .* or sensor=\(HEIGHT, WIDTH\) in Python. In 12 "
    )
    with pytest.raises(UserError, match=match + r".* reach height 64, width 64 \(in train/whole/.*\), and in half"):
        load_event_folder(unsaid, frames=FRAMES)
    with pytest.raises(UserError, match=match):  # which is nothing that is wrong with files
        load_event_folder(unsaid, frames=FRAMES, skip_bad=True)
    path = unsaid / "train" / "whole" / "1.npz"
    write_unsaid(path, [0, 60000], [0, 3])
    with pytest.raises(
        UserError, match=r"width 60001 \(in .*whole/1\.npz\), and in half of them at most height 16, width 16"
    ):
        load_event_folder(unsaid, frames=FRAMES)


def write_unsaid(path, x, y):
    np.savez(path, t=np.arange(len(x)), x=np.array(x), y=np.array(y), p=np.ones(len(x)))


def test_files_that_contradict_the_sensor_are_named(unsaid):
    write_unsaid(unsaid / "train" / "whole" / "1.npz", [0, 60000], [0, 3])
    write_npz(unsaid / "test" / "whole" / "0.npz", seed=0, side=8)
    with pytest.raises(UserError, match="2 of the 12 recordings") as raised:
        load_event_folder(unsaid, frames=FRAMES, sensor=(64, 64))
    assert "train/whole/1.npz: 1 of its 2 events lie outside the sensor of 64 x 64 pixels" in str(raised.value)
    assert "test/whole/0.npz: its sensor has a height of 8 pixels, but the setting is sensor=[64, 64]" in str(
        raised.value
    )
    assert len(load_event_folder(unsaid, frames=FRAMES, sensor=(64, 64), skip_bad=True).train) == 5
    with pytest.raises(UserError, match=r"sensor=\[64, 60000\]: is height 64, width 60000, but sensors have 1 to 4096"):
        load_event_folder(unsaid, frames=FRAMES, sensor=(64, 60000))


def test_another_sensor_is_another_cache(unsaid):
    one = load_event_folder(unsaid, frames=FRAMES, sensor=(64, 64)).train.image(0).clone()
    other = load_event_folder(unsaid, frames=FRAMES, sensor=(128, 64)).train.image(0)
    assert int(other[:, :1].sum()) == int(one[:, :2].sum())


def test_bin_files_are_of_the_sensor_that_is_set(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "r" / split / name).mkdir(parents=True)
            file_of(tmp_path, (239, 179, 1, 5)).rename(tmp_path / "r" / split / name / "0.bin")
    with pytest.raises(UserError, match=r"outside the sensor of 34 x 34.*set its size by data\.sensor"):
        load_event_folder(tmp_path / "r", frames=FRAMES)
    data = load_event_folder(tmp_path / "r", frames=FRAMES, sensor=(180, 240))
    assert data.sensor == "height 180, width 240 (as data.sensor says), stretched to a square"
    assert int(data.train.image(0)[:, 7, 7].sum()) == 1


def test_folders_of_classes_alone_are_split_by_fifths_where_it_is_said(event_folder):
    flat = event_folder / "train"
    with pytest.raises(FileNotFoundError, match=r"it has left, right.*data\.split=fifth sets a fifth of each aside"):
        load_event_folder(flat, frames=FRAMES)
    data = load_event_folder(flat, frames=FRAMES, split="fifth")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0] * 5 + [1] * 5, [0, 1])
    assert data.split is not None
    assert data.split.startswith("fifth (")
    assert load_event_folder(flat, frames=FRAMES, split="fifth").split == data.split
    with pytest.raises(UserError, match=r"split='fifth': .* has train/ and test/, which are the split"):
        load_event_folder(event_folder, frames=FRAMES, split="fifth")
    with pytest.raises(UserError, match="split='seeded': for a folder of recordings, write fifth, or null"):
        load_event_folder(flat, frames=FRAMES, split="seeded")


def test_frames_larger_than_the_sensor_are_warned_of_with_the_size_that_fits(event_folder, caplog):
    load_event_folder(event_folder, frames=Frames(num_steps=2, size=8))
    assert not caplog.records
    for _ in range(2):  # of a cache that is there, too
        caplog.clear()
        load_event_folder(event_folder, frames=Frames(num_steps=2, size=12))
        assert "frames of 12 x 12 pixels are larger than the sensor (height 8, width 8)" in caplog.text
        assert "data.frames.size=8 is the largest that leaves none" in caplog.text


def test_one_recording_is_guessed_with_a_warning_and_an_absurd_one_is_not(tmp_path, caplog):
    write_unsaid(tmp_path / "a.npz", [0, 40], [0, 30])
    events = read_events(tmp_path / "a.npz")
    assert (events.height, events.width) == (31, 41)
    assert "a.npz: does not say how large the sensor is, which is taken to end" in caplog.text
    caplog.clear()
    assert read_events(tmp_path / "a.npz", sensor=(48, 64)).width == 64
    assert not caplog.records
    write_unsaid(tmp_path / "b.npz", [0, 60000], [0, 30])
    with pytest.raises(UserError, match=r"b\.npz: .* its events reach height 31, width 60001, but sensors have"):
        read_events(tmp_path / "b.npz")


def test_a_file_replaced_with_the_same_size_and_time_is_not_noticed(event_folder):
    """As with `make` and `rsync`: docs/events.md says so."""
    path = event_folder / "train" / "left" / "0.npz"
    before, stat = load_event_folder(event_folder, frames=FRAMES).train.image(0).clone(), path.stat()
    write_npz(path, seed=99)
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_event_folder(event_folder, frames=FRAMES).train.image(0).equal(before)
    os.utime(path)
    new = to_frames(read_events(path), FRAMES)[0].reshape(4, 8, 8)
    np.testing.assert_array_equal(load_event_folder(event_folder, frames=FRAMES).train.image(0).numpy(), new)
