"""What a loader draws depends on a seed, whichever generator it draws from."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from shortback.training.draws import Draws


def drawn(source, seed):
    """Three numbers, drawn in two blocks."""
    draws, found = Draws(source, seed=seed), []
    for count in (1, 2):
        with draws.drawing():
            found += [float(source()) for _ in range(count)]
    return found


def states(own=None):
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), own and own.get_state()


class Own:
    def __init__(self):
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self):
        return torch.rand((), generator=self.generator)


@pytest.mark.parametrize(
    "source", [random.random, np.random.rand, lambda: torch.rand(()), Own()], ids=["python", "numpy", "torch", "own"]
)
def test_what_is_drawn_is_of_the_seed_and_leaves_no_trace(source):
    before = states(getattr(source, "generator", None))
    first = drawn(source, 1)
    after = states(getattr(source, "generator", None))
    assert before[:3] == after[:3]
    assert before[3] is None or torch.equal(before[3], after[3])
    source()
    assert drawn(source, 1) == first
    assert len(set(first)) == 3
    assert drawn(source, 2) != first


class Numbers(Dataset):
    def __init__(self):
        self.generator = torch.Generator()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index


def test_generators_are_found_wherever_a_loader_has_them():
    """Two on the loader, one in each of its parts: all are others while it draws, and as before afterwards."""
    make = [torch.Generator().manual_seed(index) for index in range(3)]
    data = Numbers()
    batches = BatchSampler(RandomSampler(data, generator=make[1]), 2, drop_last=False)
    batches.generator = make[2]
    loader = DataLoader(data, batch_sampler=batches, generator=make[0])
    every = [*make, data.generator]
    before = [generator.get_state() for generator in every]
    with Draws(loader, seed=0).drawing():
        within = [generator.get_state() for generator in every]
    assert not any(torch.equal(a, b) for a, b in zip(before, within, strict=True))
    assert all(torch.equal(a, g.get_state()) for a, g in zip(before, every, strict=True))
    assert len({tuple(state.tolist()) for state in within}) == 4
