import os
import zipfile

import pytest

from shortback.data.events import Frames, load_ncaltech101, load_nmnist
from shortback.data.events.folders import files_in
from tests.data.events.conftest import SHARED
from tests.data.events.test_nmnist import file_of

FRAMES = Frames(num_steps=2, size=8)


@pytest.mark.skipif(not (SHARED / "nmnist-small.zip").is_file(), reason="no recordings at hand")
def test_real_digits(tmp_path):
    with zipfile.ZipFile(SHARED / "nmnist-small.zip") as archive:
        archive.extractall(tmp_path)
    data = load_nmnist(tmp_path / "nmnist-small", frames=Frames(num_steps=4, size=34))
    assert (len(data.train), len(data.test)) == (1000, 100)
    assert data.train.labels.bincount().min() > 50
    assert data.train.image(0).sum() > 1000
    assert data.sensor == "height 34, width 34 (of the data set)"


def test_ncaltech101_holds_a_fifth_of_each_class_out(tmp_path):
    for name in ("accordion", "yin_yang"):
        (tmp_path / "Caltech101" / name).mkdir(parents=True)
        for number in range(10):
            path = file_of(tmp_path, (239, 179, 1, number))
            path.rename(tmp_path / "Caltech101" / name / f"image_{number:04}.bin")
    data = load_ncaltech101(tmp_path, frames=FRAMES)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert len(data.train) == 16
    with pytest.raises(FileNotFoundError, match="N-Caltech101 was not found"):
        load_ncaltech101(tmp_path / "none", frames=FRAMES)
    with pytest.raises(FileNotFoundError, match="N-MNIST was not found"):
        load_nmnist(tmp_path / "none", frames=FRAMES)


def test_what_is_hidden_is_passed_over_and_a_link_that_leads_nowhere_is_not(tmp_path):
    for name in ("b.npz", ".hidden.npz", ".ipynb_checkpoints/b-checkpoint.npz", "a/x.npz", "a/.git/y.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c.npz").symlink_to("nowhere")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self.npz").symlink_to("self.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    found = [path.relative_to(tmp_path).as_posix() for path in files_in(tmp_path)]
    assert found == ["a/x.npz", "b.npz", "c.npz", "self.npz"]
