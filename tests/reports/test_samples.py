import numpy as np
import pytest
import torch

from shortback.data import ArrayImages, Augmentation, ImageData, Subset, train_transform
from shortback.reports import samples
from shortback.reports.samples import draw_samples


def source(images, **settings):
    part = ArrayImages(images, torch.arange(len(images)) % 2, files=[f"{i}.bin" for i in range(len(images))])
    channels = settings.pop("in_channels")
    one = {"mean": (0.5,) * channels, "std": (0.5,) * channels, "in_channels": channels, "image_size": 6}
    return ImageData(name="some", classes=("a", "b"), train=part, test=part, **one, **settings)


def pictures(figure):
    """The pictures of each line, float [H, W, 3], and its title."""
    lines = {}
    for axes in figure.axes:
        for drawn in axes.get_images():
            row = axes.get_subplotspec().rowspan.start
            lines.setdefault(row, []).append(np.asarray(drawn.get_array()))
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    return list(lines.values()), titles


def test_a_sequence_is_a_line_of_frames_on_red_off_blue():
    frames = torch.zeros(4, 6, 6, 6, dtype=torch.uint8)  # three steps of OFF and ON
    frames[:, 1, 0, 0], frames[:, 4, 5, 5] = 200, 200  # ON in the first step, OFF in the last
    data = source(frames, in_channels=2, num_steps=3)
    transform = train_transform(Augmentation(), image_size=6)
    lines, titles = pictures(draw_samples(data, Subset(data.train, torch.tensor([3, 2])), count=2, transform=transform))
    assert titles == ["a   2.bin", "b   3.bin"]
    assert [len(line) for line in lines] == [3, 3]
    np.testing.assert_allclose(lines[0][0][0, 0], samples.ON)
    np.testing.assert_allclose(lines[0][2][5, 5], samples.OFF)
    np.testing.assert_array_equal(lines[0][1], 1.0)


def test_what_is_augmented_is_below_or_beside():
    torch.manual_seed(0)
    transform = train_transform(Augmentation(roll=3), image_size=6)
    frames = source(torch.randint(256, (4, 4, 6, 6), dtype=torch.uint8), in_channels=2, num_steps=2)
    lines, titles = pictures(draw_samples(frames, frames.train, count=1, transform=transform))
    assert titles[1] == "augmented"
    assert [len(line) for line in lines] == [2, 2]
    grey = source(torch.randint(256, (4, 1, 6, 6), dtype=torch.uint8), in_channels=1)
    lines, titles = pictures(draw_samples(grey, grey.train, count=1, transform=transform))
    assert titles[0].endswith("and augmented")
    assert len(lines[0]) > 3
    assert sorted(lines[0][0].ravel()) == pytest.approx(sorted(lines[0][1].ravel()))  # rolled: the same pixels


def test_classes_take_turns():
    data = source(torch.zeros(8, 1, 6, 6, dtype=torch.uint8), in_channels=1)
    _, titles = pictures(
        draw_samples(data, data.train, count=4, transform=train_transform(Augmentation(), image_size=6))
    )
    assert [title[0] for title in titles] == ["a", "b", "a", "b"]


def test_what_is_only_resized_is_not_called_augmented():
    grey = source(torch.randint(256, (4, 1, 6, 6), dtype=torch.uint8), in_channels=1)
    transform = train_transform(Augmentation(), image_size=8)
    lines, titles = pictures(draw_samples(grey, grey.train, count=1, transform=transform))
    assert titles == ["a   0.bin"]
    assert len(lines[0]) == 1


def test_file_names_of_any_bytes_are_drawn(tmp_path):
    data = source(torch.zeros(2, 1, 6, 6, dtype=torch.uint8), in_channels=1)
    data.train.files[:] = ["$x^$.png", b"\xff.png".decode(errors="surrogateescape")]
    figure = draw_samples(data, data.train, count=2, transform=train_transform(Augmentation(), image_size=6))
    figure.savefig(tmp_path / "it.png")
