import numpy as np
import pytest

from shortback.data.events import Frames, load_simulated_events
from shortback.data.events.simulated import SUBSTEP, SUBSTEPS, THRESHOLD, simulate


def test_a_dark_picture_makes_no_event():
    with pytest.raises(ValueError, match="no event"):
        simulate(np.zeros((28, 28), np.uint8))


def test_every_pixel_ends_where_it_began():
    """The camera comes back, so ON and OFF of a pixel are equal but for one event that is not due yet."""
    rng = np.random.default_rng(0)
    picture = np.zeros((28, 28), np.uint8)
    picture[8:20, 8:20] = rng.integers(0, 255, (12, 12))
    events = simulate(picture)
    balance = np.zeros((34, 34), int)
    np.add.at(balance, (events.y, events.x), np.where(events.on, 1, -1))
    assert np.abs(balance).max() <= 1
    assert events.t.max() <= 3 * SUBSTEPS * SUBSTEP


def test_an_edge_fires_on_the_side_that_the_camera_moves_to():
    """The first way goes up: a bright bar moves down on the sensor, its lower edge becomes brighter."""
    picture = np.zeros((28, 28), np.uint8)
    picture[10:14, 4:24] = 255
    events = simulate(picture)
    first = events.t < 2 * SUBSTEPS // 5 * SUBSTEP
    on, off = events.on & first, ~events.on & first
    assert events.y[on].mean() > events.y[off].mean()
    assert (np.log(1.1) - np.log(0.1)) / THRESHOLD > 7  # so that an edge is several events


def test_the_source_has_all_bundled_images(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load_simulated_events(frames=Frames(num_steps=2, size=17))
    assert (len(data.train), len(data.test), data.num_steps) == (6000, 1000, 2)
    assert data.train.labels.bincount().tolist() == [600] * 10
    assert data.train.image(0).sum() > 100
