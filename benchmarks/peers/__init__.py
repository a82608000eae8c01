"""The libraries compared with: each builds our ResNets from its own layers, as its users do, with our weights.

A module here has `build(ours)`, which returns a network from `[N, C, H, W]` to `[N, K]` like ours.
"""

from __future__ import annotations


def missing(library: str) -> ModuleNotFoundError:
    """The error of a library that is not installed."""
    return ModuleNotFoundError(f"{library} is not installed, and is compared with: pip install 'shortback[bench]'")
