"""The global generators of random numbers: PyTorch's, Python's and NumPy's."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def generators_kept(*tensors: Tensor) -> Iterator[None]:
    """Restore the states of the global generators and the tensors' GPU generators when the block ends.

    NumPy is not imported for this: if nothing has imported it yet, nothing draws from it.
    """
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    python, numpy = random.getstate(), sys.modules.get("numpy")
    state = None if numpy is None else numpy.random.get_state(legacy=False)
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(state)


def seed_generators(seed: int) -> None:
    """Seed all of them."""
    torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)
