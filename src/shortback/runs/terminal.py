"""Output of a run on the terminal: lines with its name in front, and advice where gradients are not healthy."""

from __future__ import annotations

from pathlib import Path

from shortback.data import ImageData, ImageSet
from shortback.data.images import shards_of
from shortback.training import Terminal
from shortback.training.loggers import Row

NUM_LOOKED_AT = 20


class RunTerminal(Terminal):
    """A `Terminal` that follows the first report of unhealthy gradients with the command that diagnoses the run.

    Args:
        title: printed in front of every line.
        folder: folder of the run.
        has_branches: see `Terminal`.
    """

    def __init__(self, title: str, *, folder: Path, has_branches: bool = True) -> None:
        super().__init__(title, has_branches=has_branches)
        self.folder: Path | None = folder

    def log(self, row: Row) -> None:
        super().log(row)
        if row["kind"] == "health" and row["verdict"] != "healthy" and self.folder is not None:
            self.console.print(f"{self.title}  from the first checkpoint on: shortback diagnose {self.folder}")
            self.folder = None


def how_resized(source: ImageData, images: ImageSet, *, resized_crop: bool) -> str | None:
    """Describe how images of another size are resized, judging by up to 20 of them.

    Args:
        source: the data that the images belong to.
        images: the training images.
        resized_crop: whether training cuts random parts out of the images.

    Returns:
        A sentence; None for event frames, and if no image needs resizing.
    """
    if source.num_steps is not None:
        return None
    size = source.image_size
    several = NUM_LOOKED_AT if shards_of(images) is None else 1  # shards may be remote: open one, not twenty
    looked_at = [images.image(len(images) * i // several) for i in range(several)] if len(images) else []
    sizes = {(image.shape[-1], image.shape[-2]) for image in looked_at}
    if sizes <= {(size, size)}:
        return None
    seen = [f"{width} x {height}" for width, height in sorted(sizes)]
    which = seen[0] if len(seen) == 1 else f"such sizes as {seen[0]} and {seen[-1]}"
    train = "; training cuts out random parts instead (data.augment.resized_crop)" if resized_crop else ""
    return (
        f"images of {which} pixels are resized, the shorter side to {size}, and the {size} x {size} in their middle "
        f"are cut out: data.image_size{train}"
    )
