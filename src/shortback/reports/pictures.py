"""Write a picture to a file, on white, in the format given by the file's ending."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from shortback.errors import UserError
from shortback.files import replacing

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")


def check_picture(path: Path, *, what: str) -> None:
    """Check the file name of a picture, before its contents are computed.

    Args:
        path: the file name.
        what: what to call it in the message, e.g. `--picture`.

    Raises:
        ValueError: the ending of the name is not a known format.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{what} {path}: the name of a picture ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def save_picture(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a figure whose own background is transparent, completely or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    alpha = figure.patch.get_alpha()
    figure.patch.set_alpha(None)  # otherwise it would apply to the white background too
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=dpi, facecolor="white", format=path.suffix[1:].lower())
    finally:
        figure.patch.set_alpha(alpha)


def save_pictures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures as PNG files named after their titles into a folder, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{title.lower().replace(' ', '-')}.png" for title in figures]
    for file, figure in zip(files, figures.values(), strict=True):
        save_picture(figure, file)
    return files
