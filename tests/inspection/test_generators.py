import random
import sys

import numpy as np
import torch

from shortback.inspection.generators import generators_kept, seed_generators


def drawn():
    return torch.rand(()).item(), random.random(), np.random.rand(), np.random.standard_normal()


def test_a_seed_decides_what_is_drawn_and_the_states_come_back():
    np.random.standard_normal()  # the second of a pair of normal draws is part of the state
    with generators_kept():
        expected = drawn()
        for seed in (0, 1, 0):
            seed_generators(seed)
            last = drawn()
        seed_generators(0)
        assert drawn() == last
    assert drawn() == expected


def test_another_generator_of_numpys_comes_back_too():
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        with generators_kept():
            expected = drawn()
        assert drawn() == expected
    finally:
        np.random.set_bit_generator(before)


def test_numpy_is_not_imported_for_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy")
    with generators_kept():
        seed_generators(0)
    assert "numpy" not in sys.modules
