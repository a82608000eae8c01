from types import SimpleNamespace

import pytest
import torch

from shortback.data import ArrayImages
from shortback.runs.terminal import RunTerminal, how_resized

UNHEALTHY = {"kind": "health", "step": 0, "verdict": "vanishing", "reason": "1e-9 at conv1"}


def test_the_line_on_gradients_is_followed_by_a_whole_command_once(tmp_path, capsys):
    shown = RunTerminal("mine", folder=tmp_path / "run")
    healthy = {"kind": "health", "step": 0, "verdict": "healthy", "effective_depth": 2, "num_layers": 2}
    for row in (healthy, UNHEALTHY, healthy, UNHEALTHY):
        shown.log(row)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"mine  from the first checkpoint on: shortback diagnose {tmp_path / 'run'}"
    assert sum("shortback diagnose /" in line for line in lines) == 1


class OfSizes:
    """Images of given sizes, by turns."""

    def __init__(self, *sizes):
        self.images, self.labels = [torch.zeros(3, *size) for size in sizes], torch.zeros(60)

    def __len__(self):
        return 60

    def image(self, index):
        return self.images[index % len(self.images)]


def source(size, num_steps=None):
    return SimpleNamespace(image_size=size, num_steps=num_steps)


def test_images_that_are_resized_are_told_of():
    said = how_resized(source(96), OfSizes((120, 96)), resized_crop=False)
    assert said == (
        "images of 96 x 120 pixels are resized, the shorter side to 96, and the 96 x 96 in their middle are cut out: "
        "data.image_size"
    )
    said = how_resized(source(96), OfSizes((96, 96), (375, 500)), resized_crop=True)
    assert said.startswith("images of such sizes as 96 x 96 and 500 x 375 pixels are resized, the shorter side to 96")
    assert said.endswith("; training cuts out random parts instead (data.augment.resized_crop)")


@pytest.mark.parametrize(("size", "num_steps"), [(28, None), (14, 4)])
def test_nothing_is_said_of_what_fits_nor_of_frames(size, num_steps):
    images = ArrayImages(torch.zeros(30, 1, 28, 28, dtype=torch.uint8), torch.zeros(30).long())
    assert how_resized(source(size, num_steps), images, resized_crop=False) is None
