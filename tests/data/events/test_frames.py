import numpy as np
import pytest

from shortback.data.events.frames import Frames, to_frames
from shortback.data.events.recording import Events
from shortback.errors import UserError


def events(t, x=None, y=None, on=None, *, height=4, width=4):
    n = len(t)
    x, y, on = (np.zeros(n, int) if values is None else np.array(values) for values in (x, y, on))
    return Events(np.array(t), x, y, on.astype(bool), height, width)


def counts(t, num_steps, by):
    frames, _ = to_frames(events(t), Frames(num_steps=num_steps, size=4, by=by))
    return frames.sum((1, 2, 3)).tolist()


@pytest.mark.parametrize(
    ("t", "num_steps", "by", "expected"),
    [
        (range(23), 10, "count", [2] * 9 + [5]),
        ([0, 1, 2, 50, 51, 99, 100], 2, "duration", [3, 4]),
        ([0, 1, 2, 3, 97, 98, 99, 100], 10, "duration", [4, 0, 0, 0, 0, 0, 0, 0, 0, 4]),
        ([7], 3, "count", [1, 0, 0]),
        ([7], 3, "duration", [1, 0, 0]),
        ([5, 5, 5], 2, "duration", [3, 0]),
        ([5, 5, 5], 2, "count", [1, 2]),
        ([1, 2], 4, "count", [1, 1, 0, 0]),
    ],
)
def test_no_event_is_lost(t, num_steps, by, expected):
    assert counts(t, num_steps, by) == expected


def naively(recording, settings):
    """The definition, one event after another."""
    frames = np.zeros((settings.num_steps, 2, settings.size, settings.size), int)
    n, span = len(recording), int(recording.t[-1] - recording.t[0])
    for i in range(n):
        if settings.by == "count":
            step = i // max(1, n // settings.num_steps)
        else:
            step = int(recording.t[i] - recording.t[0]) * settings.num_steps // span
        row = recording.y[i] * settings.size // recording.height
        column = recording.x[i] * settings.size // recording.width
        frames[min(step, settings.num_steps - 1), int(recording.on[i]), row, column] += 1
    return frames


@pytest.mark.parametrize("by", ["count", "duration"])
@pytest.mark.parametrize(
    ("height", "width", "size", "num_steps"), [(34, 34, 34, 3), (128, 128, 48, 10), (7, 11, 16, 4)]
)
def test_they_are_what_the_definition_says(by, height, width, size, num_steps):
    rng = np.random.default_rng(0)
    n = 997
    recording = events(
        np.sort(rng.integers(0, 5000, n)),
        rng.integers(0, width, n),
        rng.integers(0, height, n),
        rng.integers(0, 2, n),
        height=height,
        width=width,
    )
    settings = Frames(num_steps=num_steps, size=size, by=by)
    frames, saturated = to_frames(recording, settings)
    np.testing.assert_array_equal(frames, naively(recording, settings))
    assert saturated == 0
    assert frames.dtype == np.uint8
    binary, _ = to_frames(recording, Frames(num_steps=num_steps, size=size, by=by, values="binary"))
    np.testing.assert_array_equal(binary, frames > 0)


def test_nearest_takes_one_pixel_of_those_it_covers():
    on_all = events(range(16), np.tile(range(4), 4), np.repeat(range(4), 4))
    frames, _ = to_frames(on_all, Frames(num_steps=1, size=2, resize="nearest"))
    assert frames[0, 0].tolist() == [[1, 1], [1, 1]]
    summed, _ = to_frames(on_all, Frames(num_steps=1, size=2))
    assert summed[0, 0].tolist() == [[4, 4], [4, 4]]
    corner = events([0, 1, 2], [0, 1, 2], [0, 0, 2])
    assert to_frames(corner, Frames(num_steps=1, size=2, resize="nearest"))[0][0, 0].tolist() == [[1, 0], [0, 1]]


def test_a_sensor_that_is_not_square_is_stretched_or_fitted():
    everywhere = events(range(8), np.tile(range(4), 2), np.repeat(range(2), 4), height=2, width=4)
    stretched, _ = to_frames(everywhere, Frames(num_steps=1, size=2))
    assert stretched[0, 0].tolist() == [[2, 2], [2, 2]]
    kept = Frames(num_steps=1, size=4, keep_aspect=True)
    assert to_frames(everywhere, kept)[0][0, 0].tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]
    assert to_frames(everywhere, Frames(num_steps=1, size=2, keep_aspect=True))[0][0, 0].tolist() == [[4, 4], [0, 0]]
    upright = events(range(8), np.repeat(range(2), 4), np.tile(range(4), 2), height=4, width=2)
    for resize in ("sum", "nearest"):
        kept = Frames(num_steps=1, size=4, keep_aspect=True, resize=resize)
        assert to_frames(upright, kept)[0][0, 0].tolist() == [[0, 1, 1, 0]] * 4


@pytest.mark.parametrize("resize", ["sum", "nearest"])
@pytest.mark.parametrize("size", [1, 3, 5, 48, 64, 70])
def test_a_square_sensor_is_the_same_with_and_without_its_aspect(resize, size):
    rng = np.random.default_rng(0)
    square = events(range(500), rng.integers(0, 64, 500), rng.integers(0, 64, 500), height=64, width=64)
    settings = {"num_steps": 2, "size": size, "resize": resize}
    kept, _ = to_frames(square, Frames(**settings, keep_aspect=True))
    np.testing.assert_array_equal(kept, to_frames(square, Frames(**settings))[0])


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (1, 64), (63, 64), (720, 1280)])
@pytest.mark.parametrize("size", [1, 7, 48, 64])
def test_no_event_is_lost_with_the_aspect_kept(height, width, size):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, width, 200), rng.integers(0, height, 200)
    recording = events(range(200), x, y, height=height, width=width)
    frames, _ = to_frames(recording, Frames(num_steps=1, size=size, keep_aspect=True))
    assert frames.sum() == 200


def test_one_polarity_does_not_depend_on_the_other():
    both = events(range(6), [1] * 6, [2] * 6, [0, 1, 1, 0, 1, 1])
    frames, _ = to_frames(both, Frames(num_steps=1, size=4))
    assert frames[0, :, 2, 1].tolist() == [2, 4]
    assert frames.sum() == 6


def test_what_a_byte_cannot_hold_is_cut_and_counted():
    frames, saturated = to_frames(events(range(300), on=[0] * 290 + [1] * 10), Frames(num_steps=1, size=4))
    assert frames[0, :, 0, 0].tolist() == [255, 10]
    assert saturated == 1


@pytest.mark.parametrize(
    "wrong", [{"num_steps": 0}, {"size": 0}, {"by": "time"}, {"resize": "max"}, {"values": "rate"}], ids=str
)
def test_wrong_settings_are_named(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=rf"frames\.{name}="):
        Frames(**{"num_steps": 2, "size": 4, **wrong})
