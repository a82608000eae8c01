import pytest

from shortback.errors import UserError
from shortback.recipes.batch_size import check_batch_size, fitting_batch_size


def test_four_batches_or_more_of_a_power_of_two():
    assert [fitting_batch_size(n) for n in (1, 2, 8, 15, 16, 42, 128, 511, 512)] == [2, 2, 2, 2, 4, 8, 32, 64, 128]


def test_what_is_too_large_says_what_fits():
    check_batch_size(42, num_images=42)
    with pytest.raises(UserError, match=r"a batch of 128 is more than the 42 images .*, -s train\.batch_size=8$"):
        check_batch_size(128, num_images=42)
    with pytest.raises(UserError, match=r"more than the 1 image to train on: give more images$"):
        check_batch_size(128, num_images=1)
