import pytest

from shortback.ablation.significance import estimate, paired_difference


def test_by_hand():
    """1, 2, 3: mean 2, s = 1, t for 2 degrees of freedom 4.302653, so 2 +- 4.302653 / sqrt 3."""
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.std, found.num_values) == (2.0, 1.0, 3)
    assert found.interval == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)


def test_pairs_are_of_the_same_seed():
    """Differences 1, 2, 3 again: t = 2 sqrt 3 = 3.4641 with 2 degrees of freedom, p = 0.0742."""
    difference = paired_difference({0: 11.0, 1: 5.0, 2: 8.0, 7: 100.0}, {2: 5.0, 0: 10.0, 1: 3.0, 9: -4.0})
    assert difference.estimate.mean == 2.0
    assert difference.p_value == pytest.approx(0.07418, abs=1e-5)
    assert difference.estimate.interval[0] < 0


def test_few_values_have_no_interval():
    assert estimate([0.5]).interval is None
    assert estimate([0.5]).std is None
    one = paired_difference({0: 1.0}, {0: 0.25})
    assert (one.estimate.mean, one.p_value) == (0.75, None)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("ours", [{0: 0.52, 1: 0.64}, {0: 0.5, 1: 0.62}])
def test_differences_that_are_all_the_same_have_no_interval(ours):
    same = paired_difference(ours, {0: 0.5, 1: 0.62})
    assert same.estimate.mean == pytest.approx(ours[0] - 0.5)
    assert (same.estimate.interval, same.p_value) == (None, None)


def test_values_that_are_all_the_same_have_no_interval():
    same = estimate([0.55, 0.55, 0.55])
    assert (same.mean, same.std, same.interval) == (pytest.approx(0.55), 0, None)
