"""Every generator that a loader may draw from, in states that depend on a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from shortback.data.seeding import Stream, derive_seed


class Draws:
    """States of generators beside those that everything else draws from.

    They are of the global generators of PyTorch (of the CPU), Python and NumPy, and of each PyTorch generator that is
    the `generator` of the loader, its samplers or its data. Worker processes are seeded by PyTorch, with a draw from
    one of these. A generator kept elsewhere, as NumPy's `default_rng()` in a data set, goes on as it would.

    Args:
        loader: or a sampler.
        seed: of all states.
    """

    def __init__(self, loader: Any, *, seed: int) -> None:
        self._stream = Stream(seed)
        self._python = random.Random(seed).getstate()
        self._numpy = np.random.RandomState(seed % 2**32).get_state()
        self._own = {
            generator: torch.Generator(generator.device).manual_seed(derive_seed(seed, number)).get_state()
            for number, generator in enumerate(_generators_of(loader))
        }

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from these states within the block; afterwards all generators are as they were."""
        python, numpy = random.getstate(), np.random.get_state()
        own = {generator: generator.get_state() for generator in self._own}
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        for generator, state in self._own.items():
            generator.set_state(state)
        try:
            with self._stream.drawing():
                yield
        finally:
            self._python, self._numpy = random.getstate(), np.random.get_state()
            self._own = {generator: generator.get_state() for generator in own}
            random.setstate(python)
            np.random.set_state(numpy)
            for generator, state in own.items():
                generator.set_state(state)


def _generators_of(loader: Any) -> list[torch.Generator]:
    """The generators that are found on a loader and its parts, each once, in a fixed order."""
    by_batch = getattr(loader, "batch_sampler", None)
    parts = (loader, getattr(loader, "sampler", None), by_batch, getattr(by_batch, "sampler", None))
    found = [getattr(part, "generator", None) for part in (*parts, getattr(loader, "dataset", None))]
    return list(dict.fromkeys(each for each in found if isinstance(each, torch.Generator)))
