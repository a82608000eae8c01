"""Write a picture into a file, on white, in the format that its ending names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from shortback.errors import UserError
from shortback.files import replacing

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")


def check_picture(path: Path, *, what: str) -> None:
    """See that a picture can have this name: before what it shows is computed, and not after.

    Args:
        what: it is called in the message, e.g. `--picture`.

    Raises:
        ValueError: its ending names no format.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{what} {path}: the name of a picture ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def save_picture(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a figure, whose own background is transparent, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    alpha = figure.patch.get_alpha()
    figure.patch.set_alpha(None)  # one that was set stays with whatever colour it is saved in
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=dpi, facecolor="white", format=path.suffix[1:].lower())
    finally:
        figure.patch.set_alpha(alpha)


def save_pictures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures by their titles as PNG files into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{title.lower().replace(' ', '-')}.png" for title in figures]
    for file, figure in zip(files, figures.values(), strict=True):
        save_picture(figure, file)
    return files
