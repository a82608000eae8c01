"""A list that is remembered is the list that would be made, or is made again."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from shortback.data import folder_index
from shortback.data.folder_index import SplitFiles, list_split, remember
from shortback.data.packed import PackedStrings

CLASSES = ("cat", "dog", "eel")
OLD = 1_600_000_000


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_index, "REMEMBER_FROM", 1)
    for name in ("train/cat/b.png", "train/cat/a.png", "train/dog/deep/c.png", "train/dog/.hidden"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    age(tmp_path / "root")
    return tmp_path / "root"


def age(root, when=OLD):
    for path in root.rglob("*"):
        if path.is_dir():
            os.utime(path, (when, when))


def listed(root, cache=None):
    return list_split(root, "train", CLASSES, caches=[cache or root.parent / "cache"])


def test_files_by_class_and_name(root):
    found = listed(root)
    assert list(found.files) == ["train/cat/a.png", "train/cat/b.png", "train/dog/deep/c.png"]
    assert found.labels.tolist() == [0, 0, 1]
    assert found.stats[:, 0].tolist() == [5, 5, 5]
    assert found.stats[0, 1] == (root / "train/cat/a.png").stat().st_mtime_ns


def test_it_is_remembered_and_only_folders_are_looked_at(root, monkeypatch):
    first = listed(root)
    monkeypatch.setattr(os, "scandir", None)
    again = listed(root)
    assert list(again.files) == list(first.files)
    assert np.array_equal(again.stats, first.stats)
    assert np.array_equal(again.labels, first.labels)


@pytest.mark.parametrize("where", ["train/dog/deep", "train/dog", "train/cat"])
def test_a_file_that_comes_or_goes_is_seen(root, where):
    before = len(listed(root).files)
    (root / where / "new.png").touch()
    assert len(listed(root).files) == before + 1
    age(root, OLD + 1)
    assert len(listed(root).files) == before + 1
    (root / where / "new.png").unlink()
    assert len(listed(root).files) == before


def test_a_folder_that_goes_and_classes_that_change_are_seen(root):
    listed(root)
    (root / "train/dog/deep/c.png").rename(root / "train/dog/c.png")
    (root / "train/dog/deep").rmdir()
    assert list(listed(root).files)[-1] == "train/dog/c.png"
    age(root)
    listed(root)
    assert list_split(root, "train", ("dog",), caches=[root.parent / "cache"]).labels.tolist() == [0]


def test_the_folder_of_a_class_that_had_none_is_seen(root):
    listed(root)
    (root / "train/eel").mkdir()
    (root / "train/eel/d.png").touch()
    assert list(listed(root).files)[-1] == "train/eel/d.png"


def test_files_of_the_folder_one_is_in(root, monkeypatch):
    monkeypatch.chdir(root)
    whole = list_split(Path("."), "train", ["cat", "dog"], caches=[])
    assert list(whole.files) == ["train/cat/a.png", "train/cat/b.png", "train/dog/deep/c.png"]


def test_what_changed_a_moment_ago_is_not_remembered(root):
    age(root, time.time())
    listed(root)
    assert not (root.parent / "cache").exists()


def test_few_files_are_looked_at_each_time(root, monkeypatch):
    monkeypatch.setattr(folder_index, "REMEMBER_FROM", 4)
    listed(root)
    assert not (root.parent / "cache").exists()


def test_a_damaged_list_and_a_cache_that_cannot_be_written(root, caplog):
    listed(root)
    (root.parent / "cache" / "index-train.npz").write_bytes(b"no")
    assert len(listed(root).files) == 3
    assert "cannot be read" in caplog.text
    (root.parent / "file").touch()
    assert len(listed(root, root.parent / "file" / "cache").files) == 3


def test_an_empty_class_is_named(root):
    (root / "train/eel").mkdir()
    with pytest.raises(ValueError, match=r"train has 1 empty class: 'eel'"):
        listed(root)


def test_a_list_of_imagenet_is_read_in_two_seconds(tmp_path):
    """1.28 million names in a thousand folders, of which there are only the folders."""
    classes = [f"n{number:08}" for number in range(1000)]
    folders = {}
    for name in classes:
        (tmp_path / "train" / name).mkdir(parents=True)
        folders[f"train/{name}"] = (tmp_path / "train" / name).stat().st_mtime_ns
    files = PackedStrings.of(f"train/{name}/{name}_{number}.JPEG" for name in classes for number in range(1280))
    found = SplitFiles(files, np.ones((len(files), 2), dtype=np.int64), np.repeat(np.arange(1000), 1280))
    remember(found, classes, folders, [tmp_path], "index-train.npz")
    began = time.perf_counter()
    again = list_split(tmp_path, "train", classes, caches=[tmp_path])
    seconds = time.perf_counter() - began
    assert len(again.files) == 1_280_000
    assert again.files[-1] == files[-1]
    assert Path(again.files[0]).name == "n00000000_0.JPEG"
    assert seconds < 2


def test_links_are_followed_but_those_into_themselves(root):
    (root / "train/cat/loop").symlink_to(root / "train/cat")
    (root / "train/cat/up").symlink_to(root)
    (root / "train/cat/other").symlink_to(root / "train/dog/deep")
    found = listed(root)
    linked = ["train/cat/other/c.png", "train/cat/up/train/dog/deep/c.png"]
    assert list(found.files) == ["train/cat/a.png", "train/cat/b.png", *linked, "train/dog/deep/c.png"]


def test_a_link_to_itself_is_a_file_that_cannot_be_read(root):
    (root / "train/cat/x.png").symlink_to("x.png")
    found = listed(root)
    at = list(found.files).index("train/cat/x.png")
    assert found.stats[at].tolist() == [-1, -1]
