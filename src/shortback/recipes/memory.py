"""Refuse a recipe that does not fit into memory, before anything is allocated."""

from __future__ import annotations

import os

import torch

from shortback.errors import UserError
from shortback.recipes.schema import Recipe

SMALLEST = 28  # pixels per side, where a recipe does not give the size of its data


def check_memory(recipe: Recipe, *, num_parameters: int) -> None:
    """Check that weights and one batch of input, a lower bound on what training needs, fit into this machine's memory.

    Raises:
        ValueError: they do not fit; the message has the numbers.
    """
    available = _available_bytes()
    weights = 2 * 4 * num_parameters  # with their gradients, in float32
    if weights > available:
        raise UserError(
            f"model.width={recipe.model.width}: {num_parameters:.1e} parameters need {weights / 2**30:,.0f} GiB with "
            f"their gradients, and this machine has {available / 2**30:,.0f}"
        )
    data, part = recipe.data, recipe.train.batch_size // recipe.train.accumulate
    size = data.frames.size if data.frames is not None else data.image_size or SMALLEST
    batch = 4 * recipe.model.num_steps * part * size**2
    if batch > available:
        raise UserError(
            f"a batch of {part} images of {size} x {size} pixels over {recipe.model.num_steps} steps needs "
            f"{batch / 2**30:,.0f} GiB for its input alone, and this machine has {available / 2**30:,.0f}: lower "
            "train.batch_size, data.image_size, data.frames.size or model.num_steps"
        )


def _available_bytes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.cuda.is_available():
        memory = max(memory, torch.cuda.get_device_properties(0).total_memory)
    return memory
