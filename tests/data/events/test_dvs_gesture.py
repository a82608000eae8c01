import pytest

from shortback.data.events import Frames, load_dvs_gesture
from shortback.errors import UserError
from tests.data.events.test_aedat3 import LINES, packet


@pytest.fixture
def root(tmp_path):
    """Two people who make all eleven gestures for 10 microseconds each, one event a microsecond."""
    folder = tmp_path / "DvsGesture"
    folder.mkdir()
    for split, person in (("train", "user01_led"), ("test", "user24_led")):
        events = [(1, 1, t % 128, 0, t) for t in range(120)]
        (folder / f"{person}.aedat").write_bytes(LINES + packet(events))
        rows = "".join(f"{label},{10 * label},{10 * label + 10}\n" for label in range(1, 12))
        (folder / f"{person}_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n{rows}")
        (folder / f"trials_to_{split}.txt").write_text(f"{person}.aedat\n")
    return tmp_path


def test_a_file_is_cut_into_its_gestures(root):
    data = load_dvs_gesture(root, frames=Frames(num_steps=1, size=128))
    assert data.train.labels.tolist() == list(range(11))
    for label in range(11):
        (columns,) = data.train.image(label)[1, 0].nonzero(as_tuple=True)
        assert columns.tolist() == [10 * (label + 1) + i for i in range(10)]


def test_times_that_are_changed_are_heeded(root):
    frames = Frames(num_steps=1, size=128)
    load_dvs_gesture(root, frames=frames)
    labels = root / "DvsGesture" / "user01_led_labels.csv"
    labels.write_text(labels.read_text().replace("\n1,10,20\n", "\n1,50,60\n"))
    (columns,) = load_dvs_gesture(root, frames=frames).train.image(0)[1, 0].nonzero(as_tuple=True)
    assert columns.tolist() == list(range(50, 60))


def test_what_is_wrong_is_named(root, tmp_path):
    folder = root / "DvsGesture"
    with pytest.raises(FileNotFoundError, match="has neither a folder DvsGesture"):
        load_dvs_gesture(tmp_path / "none", frames=Frames(num_steps=1, size=4))
    labels = folder / "user24_led_labels.csv"
    text = labels.read_text()
    labels.write_text(text + "12,1,2\n")
    with pytest.raises(UserError, match=r"user24_led_labels\.csv: must have lines of class \(1 to 11\)"):
        load_dvs_gesture(root, frames=Frames(num_steps=1, size=4))
    labels.write_text(text + "11,500,600\n")
    with pytest.raises(UserError, match="gesture 12: there is no event in it"):
        load_dvs_gesture(root, frames=Frames(num_steps=1, size=4))
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"user24_led_labels\.csv is missing"):
        load_dvs_gesture(root, frames=Frames(num_steps=1, size=4))
