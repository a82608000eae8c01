import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from shortback.data.events import Frames, load_cifar10_dvs
from shortback.data.events.cifar10_dvs import CLASSES, _test_numbers
from shortback.errors import UserError
from tests.data.events.test_aedat2 import HEADER

FRAMES = Frames(num_steps=2, size=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All 10,000 names, with one event each, at the address and time of its number."""
    root = tmp_path_factory.mktemp("dvs")
    for name in CLASSES:
        (root / name).mkdir()
        for number in range(1000):
            event = bytes([0, 0, number >> 8, number & 254]) + number.to_bytes(4, "big")
            (root / name / f"cifar10_{name}_{number}.aedat").write_bytes(HEADER + event)
    return root


def test_the_test_numbers_by_hand():
    assert _test_numbers("last100") == set(range(900, 1000))
    assert _test_numbers("lexicographic") == {*range(91, 100), *range(909, 1000)}
    assert len(_test_numbers("seeded")) == 100
    assert _test_numbers("seeded") == _test_numbers("seeded")


def test_lexicographic_is_how_spikingjelly_splits(monkeypatch):
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):  # for its speech data alone
        monkeypatch.setitem(sys.modules, name, MagicMock())
    utils = pytest.importorskip("spikingjelly.datasets.utils")
    names = sorted(f"cifar10_cat_{number}.npz" for number in range(1000))  # as DatasetFolder has them
    _, test = utils._split_class_indices([list(range(1000))], 0.9, False)
    assert {int(names[index][12:-4]) for index in test} == _test_numbers("lexicographic")


def test_splits_are_of_the_files_they_name(root):
    hashes = set()
    for split in ("last100", "lexicographic", "seeded"):
        data = load_cifar10_dvs(root, frames=FRAMES, split=split)
        assert (len(data.train), len(data.test)) == (9000, 1000)
        assert data.test.labels.bincount().tolist() == [100] * 10
        assert data.split.startswith(f"{split} (")
        hashes.add(data.split)
    assert len(hashes) == 3


def test_a_list_of_ones_own(root, tmp_path):
    own = tmp_path / "own.txt"
    names = [f"cifar10_{name}_{number}.aedat" for name in CLASSES for number in (3, 500)]
    own.write_text("\n".join([f"test/{name}" for name in names]) + "\n\n")
    data = load_cifar10_dvs(root, frames=FRAMES, split=str(own))
    assert (len(data.train), len(data.test)) == (9980, 20)
    assert data.split.startswith("own.txt (")
    assert sorted(Path(name).name for name in data.test.files) == sorted(names)
    own.write_text("cifar10_cat_1000.aedat\ncifar10_cat_1.aedat")
    with pytest.raises(UserError, match=r"1 of its 2 lines name no recording, for example 'cifar10_cat_1000\.aedat'"):
        load_cifar10_dvs(root, frames=FRAMES, split=str(own))
    own.write_text("cifar10_cat_1.aedat")
    with pytest.raises(UserError, match="no test recording of airplane"):
        load_cifar10_dvs(root, frames=FRAMES, split=str(own))
    own.write_text("cifar10_cat_1.aedat", encoding="utf-16")
    with pytest.raises(UserError, match=r"own\.txt: is not a text file in UTF-8"):
        load_cifar10_dvs(root, frames=FRAMES, split=str(own))
    with pytest.raises(FileNotFoundError, match="is not there"):
        load_cifar10_dvs(root, frames=FRAMES, split=str(tmp_path / "none.txt"))


def test_what_is_missing_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has neither a folder airplane nor airplane\.zip"):
        load_cifar10_dvs(tmp_path, frames=FRAMES)
    gone = root / "cat" / "cifar10_cat_17.aedat"
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(UserError, match="999 are there, and the first missing number is 17"):
        load_cifar10_dvs(root, frames=FRAMES)
    gone.write_bytes(content)
    with pytest.raises(UserError, match=r"data\.split='first': must be one of FILE.txt, last100"):
        load_cifar10_dvs(root, frames=FRAMES, split="first")
