"""Random numbers as a pure function of where they are used.

A generator that is advanced from sample to sample makes the tenth sample depend on the nine before it,
hence on the number of workers and on where an epoch was resumed. Here a draw is a hash of (seed, epoch,
position, ...) instead: any sample can be made first, alone, or on another machine, and comes out the same.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def derive_seeds(*parts: int | Tensor) -> Tensor:
    r"""Hash whole numbers into seeds, element by element.

    With $m$ the finaliser of SplitMix64, $h_0 = 0$ and $h_i = m(h_{i-1} \oplus p_i)$; the last one,
    without its top bit, is the seed. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014.

    Args:
        parts: numbers and int64 tensors that broadcast together.

    Returns:
        int64, at least one-dimensional, in [0, 2^63).
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = _finalise(state ^ np.asarray(part).astype(np.uint64))
    return torch.from_numpy((state >> np.uint64(1)).astype(np.int64))


def derive_seed(*parts: int) -> int:
    """Derive one seed, of plain numbers."""
    return int(derive_seeds(*parts))


def uniform(seeds: Tensor, num: int) -> Tensor:
    """Independent draws from [0, 1), with 53 random bits each.

    Args:
        seeds: int64 [n].
        num: draws for each seed.

    Returns:
        float64 [n, num].
    """
    bits = derive_seeds(seeds[:, None], torch.arange(num))
    return (bits >> 10).double() * 2.0**-53


@contextmanager
def global_generator_kept() -> Iterator[None]:
    """Put the state of the CPU's global generator back on leaving."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def seed_global(seed: int) -> None:
    """Seed the CPU's global generator; unlike torch.manual_seed, leave the devices alone."""
    torch.default_generator.manual_seed(seed)


def map_seeded(function: Callable[[_Item], _Result], items: Iterable[_Item], *, seeds: Tensor) -> list[_Result]:
    """Apply a function that draws from the CPU's global generator to each item, with a seed for each.

    Args:
        function: called once an item.
        items: n of them.
        seeds: int64 [n].

    Returns:
        The n results; the generator is left as it was.
    """
    results = []
    with global_generator_kept():
        for item, seed in zip(items, seeds.tolist(), strict=True):
            seed_global(seed)
            results.append(function(item))
    return results


def _finalise(state: np.ndarray) -> np.ndarray:
    # Arrays of uint64 wrap around silently, which is the arithmetic wanted.
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class Stream:
    """A state of the CPU's global generator, beside the one that everything else draws from."""

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from this stream within the block."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(outside)
