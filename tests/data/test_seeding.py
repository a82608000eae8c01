import torch

from shortback.data.seeding import derive_seed, derive_seeds, map_seeded, preserve_global_generator, uniform


def test_the_hash_is_splitmix64() -> None:
    # The first output of SplitMix64 from state 0 is published with its reference code: 0xE220A8397B1DCDAF.
    assert derive_seed(0) == 0xE220A8397B1DCDAF >> 1


def test_seeds_are_derived_element_by_element() -> None:
    seeds = derive_seeds(7, 3, torch.arange(5))
    assert seeds.tolist() == [derive_seed(7, 3, position) for position in range(5)]
    assert seeds.min() >= 0
    assert derive_seed(7, 3) != derive_seed(3, 7)


def test_seeds_do_not_collide() -> None:
    assert len(derive_seeds(0, torch.arange(100)[:, None], torch.arange(1000)).unique()) == 100_000


def test_draws_are_uniform_and_independent() -> None:
    draws = uniform(torch.arange(20_000), 2)
    assert draws.dtype == torch.float64
    assert draws.min() >= 0
    assert draws.max() < 1
    # Five standard errors, of the mean 0.29 / sqrt(n), and of a correlation 1 / sqrt(n).
    assert (draws.mean(0) - 0.5).abs().max() < 0.0103
    assert torch.corrcoef(draws.T)[0, 1].abs() < 0.036


def test_a_mapped_function_draws_from_the_seed_of_its_item() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = map_seeded(lambda item: item + torch.rand(()).item(), [1, 2], seeds=torch.tensor([5, 6]))
    assert torch.equal(torch.get_rng_state(), before)
    expected = [torch.rand((), generator=torch.Generator().manual_seed(seed)).item() for seed in (5, 6)]
    assert draws == [1 + expected[0], 2 + expected[1]]


def test_the_generator_is_kept_on_errors_too() -> None:
    before = torch.get_rng_state()
    try:
        with preserve_global_generator():
            torch.rand(1)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)
