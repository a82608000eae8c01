"""What a loader draws depends on a seed, whichever generator it draws from."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler

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


class Unwilling(Numbers):
    """Fails with what it likes where it is asked for what it has not."""

    def __init__(self):
        pass

    def __getattr__(self, name):
        if name == "generator":
            raise KeyError(name)
        raise AttributeError(name)


def test_data_that_fail_when_asked_for_a_generator_have_none():
    loader = DataLoader(Unwilling(), batch_size=2)
    with Draws(loader, seed=0).drawing():
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]


def test_the_second_of_two_normal_numbers_is_kept():
    """NumPy draws them in pairs, and keeps one."""
    np.random.seed(0)
    pair = np.random.randn(2).tolist()
    np.random.seed(0)
    first = np.random.randn()
    with Draws(None, seed=1).drawing():
        np.random.randn()
    assert [first, np.random.randn()] == pair


def test_a_generator_of_numpy_of_another_kind_is_put_back():
    usual, other = np.random.get_bit_generator(), np.random.PCG64(3)
    np.random.set_bit_generator(other)
    try:
        with Draws(None, seed=1).drawing():
            np.random.rand()
        assert np.random.get_bit_generator() is other
        assert np.random.rand() == np.random.Generator(np.random.PCG64(3)).random()
    finally:
        np.random.set_bit_generator(usual)


class Shuffled(Sampler):
    """Of one's own: draws from Python's generator."""

    def __init__(self):
        pass

    def __len__(self):
        return 4

    def __iter__(self):
        return iter(random.sample(range(4), 4))


@pytest.mark.parametrize(
    ("settings", "swapped"),
    [
        ({"shuffle": True}, True),
        ({"shuffle": True, "num_workers": 1}, False),
        ({"sampler": Shuffled(), "num_workers": 1}, True),
        ({"batch_size": None, "sampler": Shuffled(), "num_workers": 1}, True),
    ],
)
def test_generators_that_nothing_draws_from_are_not_exchanged(settings, swapped):
    """That takes longer than all else; what workers draw is of their own."""
    before = random.getstate()
    with Draws(DataLoader(Numbers(), **settings), seed=1).drawing():
        assert (random.getstate() != before) == swapped
