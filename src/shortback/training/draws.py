"""Run a loader with every generator it may draw from in a state that depends on a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand
from torch.utils.data import Sampler

from shortback.data.seeding import Stream, derive_seed


class Draws:
    """Separate generator states for a loader, so that nothing else draws from them.

    They cover the global generators of PyTorch (on the CPU), Python and NumPy, and each PyTorch generator found as the
    `generator` of the loader, its samplers or its data set. Worker processes are seeded by PyTorch, with a draw from
    one of these. A generator kept elsewhere, such as NumPy's `default_rng()` in a data set, is not seen.

    Args:
        loader: a loader or a sampler.
        seed: seed of all states.
        common_seed: a seed shared by all processes, for a loader that decides by itself what each of them reads. The
            loader's own generators are then seeded from this and from their initial seeds, so those seeded alike
            stay alike. Python's and NumPy's are left alone, as there is no telling whether they were.
    """

    def __init__(self, loader: Any, *, seed: int, common_seed: int | None = None) -> None:
        self._stream = Stream(seed)
        self._globals = None if common_seed is not None or _only_samplers_draw_here(loader) else _Globals(seed)
        self._own: dict[torch.Generator, torch.Tensor] = {}
        for number, generator in enumerate(_generators_of(loader)):
            before = () if common_seed is None else (generator.initial_seed(),)  # drawing does not change it
            own_seed = derive_seed(seed if common_seed is None else common_seed, number, *before)
            self._own[generator] = torch.Generator(generator.device).manual_seed(own_seed).get_state()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from these states within the block, and restore all generators afterwards."""
        own = {generator: generator.get_state() for generator in self._own}
        for generator, state in self._own.items():
            generator.set_state(state)
        try:
            with self._stream.drawing(), nullcontext() if self._globals is None else self._globals.drawing():
                yield
        finally:
            self._own = {generator: generator.get_state() for generator in own}
            for generator, state in own.items():
                generator.set_state(state)


class _Globals:
    """Separate states of Python's and NumPy's global generators."""

    def __init__(self, seed: int) -> None:
        self._python = random.Random(seed).getstate()
        self._numpy = np.random.MT19937(seed)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from these states within the block; NumPy's generator is swapped, as copying its state is slow."""
        python, numpy, numpy_state = random.getstate(), mtrand.get_bit_generator(), np.random.get_state(legacy=False)
        random.setstate(self._python)
        mtrand.set_bit_generator(self._numpy)
        try:
            yield
        finally:
            self._python, self._numpy = random.getstate(), mtrand.get_bit_generator()
            random.setstate(python)
            mtrand.set_bit_generator(numpy)
            if numpy_state["has_gauss"]:  # a cached normal draw, which swapping loses
                np.random.set_state(numpy_state)


def begin_epoch(loader: Any, epoch: int) -> None:
    """Call `set_epoch` of the samplers of a loader, or of a sampler and of that within it, where they have one."""
    own = (loader,) if isinstance(loader, Sampler) else ()
    for part in dict.fromkeys((*own, *_drawing_parts(loader))):
        set_epoch = _attribute(part, "set_epoch")
        if set_epoch is not None:
            set_epoch(epoch)


def _generators_of(loader: Any) -> list[torch.Generator]:
    """The generators found on a loader and its parts, without duplicates, in a fixed order."""
    found = [_attribute(part, "generator") for part in (loader, *_drawing_parts(loader), _attribute(loader, "dataset"))]
    return list(dict.fromkeys(each for each in found if isinstance(each, torch.Generator)))


def _drawing_parts(loader: Any) -> tuple[Any, Any, Any]:
    """The sampler, the batch sampler, and the sampler within that; None in place of each that is missing."""
    by_batch = _attribute(loader, "batch_sampler")
    return _attribute(loader, "sampler"), by_batch, _attribute(by_batch, "sampler")


def _only_samplers_draw_here(loader: Any) -> bool:
    """Whether only PyTorch's own samplers draw in this process; they use PyTorch's generators alone."""
    parts = (loader, *_drawing_parts(loader))
    is_known = all(type(part).__module__.startswith("torch.utils.data.") for part in parts)
    return is_known and loader.num_workers > 0


def _attribute(part: Any, name: str) -> Any:
    """An attribute, or None if it is missing: a foreign data set may raise anything when asked."""
    try:
        return getattr(part, name, None)
    except Exception:
        return None
