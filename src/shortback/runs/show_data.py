"""Draw and summarise the data of a recipe, before training on it."""

from __future__ import annotations

from pathlib import Path

from shortback.data import Augmentation, train_transform
from shortback.recipes.build import build_data
from shortback.recipes.schema import Recipe
from shortback.reports.pictures import check_picture, save_picture
from shortback.reports.samples import draw_samples
from shortback.runs.terminal import how_resized
from shortback.words import quantity


def write_samples(recipe: Recipe, file: Path, *, count: int) -> str:
    """Draw training samples of a recipe into a picture, and return a line or two about the data.

    Args:
        file: the picture to write.
        count: number of samples; at most all training samples are drawn.

    Raises:
        ValueError: a mistake in the recipe or the data, or a file name without a picture's ending.
        OSError: the file cannot be written.
    """
    check_picture(file, what="--out")
    splits = build_data(recipe.data, num_steps=recipe.model.num_steps, seed=recipe.seed)
    source = splits.source
    transform = train_transform(Augmentation(**recipe.data.augment.model_dump()), image_size=source.image_size)
    figure = draw_samples(source, splits.train, count=count, transform=transform, seed=recipe.seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, file, dpi=110)
    held_out = 0 if splits.validation is None else len(splits.validation)
    split = "" if source.split is None else f", split {source.split}"
    shape = " x ".join(map(str, source.batch_shape(1)[-3:]))
    steps = "" if source.num_steps is None else f"{source.num_steps} frames of "
    sensor = "" if source.sensor is None else f", sensor of {source.sensor}"
    resized = how_resized(source, splits.train, resized_crop=recipe.data.augment.resized_crop)
    classes = quantity(source.num_classes, "class", "classes")
    return (
        f"{source.name}{split}: {classes}; {len(splits.train)} samples to train on, {held_out} to "
        f"validate, {len(source.test)} to test, {steps}{shape}{sensor}; drawn in {file}"
        + (f"\n{resized}" if resized else "")
    )
