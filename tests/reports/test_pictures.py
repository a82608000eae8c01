from pathlib import Path

import pytest
from PIL import Image

from shortback.health.plots import canvas
from shortback.reports.pictures import ENDINGS, check_picture, save_picture, save_pictures


@pytest.mark.parametrize("ending", [*ENDINGS, ".PNG"])
def test_every_ending_is_a_format_that_is_written(tmp_path, ending):
    file = tmp_path / f"picture{ending}"
    check_picture(file, what="--picture")
    figure, _ = canvas("x", "y")
    save_picture(figure, file)
    assert figure.patch.get_alpha() == 0  # as a page has it
    assert list(tmp_path.iterdir()) == [file]
    if ending not in (".svg", ".pdf"):
        with Image.open(file) as picture:
            assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


@pytest.mark.parametrize("name", ["picture.xyz", "picture"])
def test_another_ending_is_refused(name):
    with pytest.raises(ValueError, match=rf"--picture {name}: .* ends in \.png, .* or \.pdf"):
        check_picture(Path(name), what="--picture")


def test_many_are_called_by_their_titles(tmp_path):
    figures = {title: canvas("x", "y")[0] for title in ("Gradient by layer", "What the neurons do")}
    files = save_pictures(figures, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["gradient-by-layer.png", "what-the-neurons-do.png"]
    for file in files:
        with Image.open(file) as picture:
            assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
