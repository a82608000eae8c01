"""Random numbers as pure functions of where they are used.

A generator that advances from sample to sample makes the tenth sample depend on the nine before it, and
hence on the number of workers and on where an epoch was resumed. Here, every draw is a hash of (seed, epoch,
position, ...) instead: a sample comes out the same whether it is made first, alone, or on another machine.
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

    With $m$ one step of SplitMix64 (increment and finaliser), $h_0 = 0$ and $h_i = m(h_{i-1} \oplus p_i)$; the
    seed is the last $h_i$ shifted right by one bit. Source: Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", OOPSLA 2014.

    Args:
        parts: whole numbers and int64 tensors that broadcast together.

    Returns:
        int64, at least one-dimensional, in [0, 2^63).
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = _finalise(state ^ np.asarray(part).astype(np.uint64))
    return torch.from_numpy((state >> np.uint64(1)).astype(np.int64))


def derive_seed(*parts: int) -> int:
    """Hash plain whole numbers into one seed."""
    return int(derive_seeds(*parts))


def uniform(seeds: Tensor, num: int) -> Tensor:
    """Draw independent numbers from [0, 1), with 53 random bits each.

    Args:
        seeds: int64 [n].
        num: number of draws per seed.

    Returns:
        float64 [n, num].
    """
    bits = derive_seeds(seeds[:, None], torch.arange(num))
    return (bits >> 10).double() * 2.0**-53


@contextmanager
def preserve_global_generator() -> Iterator[None]:
    """Restore the state of the CPU's global generator on exit."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def seed_global(seed: int) -> None:
    """Seed the CPU's global generator; unlike torch.manual_seed, do not touch the devices."""
    torch.default_generator.manual_seed(seed)


def map_seeded(function: Callable[[_Item], _Result], items: Iterable[_Item], *, seeds: Tensor) -> list[_Result]:
    """Apply a function that draws from the CPU's global generator to each item, with a seed for each.

    Args:
        function: called once per item.
        items: n items.
        seeds: int64 [n].

    Returns:
        The n results; the generator's state is restored.
    """
    results = []
    with preserve_global_generator():
        for item, seed in zip(items, seeds.tolist(), strict=True):
            seed_global(seed)
            results.append(function(item))
    return results


def _finalise(state: np.ndarray) -> np.ndarray:
    # Arrays of uint64 wrap around silently: arithmetic modulo 2^64, as intended.
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class Stream:
    """A separate random stream for code that draws from the CPU's global generator."""

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Make the global generator draw from this stream within the block."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(outside)
