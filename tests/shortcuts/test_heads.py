import torch

from shortback.shortcuts.heads import average_over_space, average_over_time, linear_head


def test_averages_by_hand():
    activation = torch.arange(16.0).reshape(4, 2, 1, 2)  # T=2, N=2, C=2
    features = average_over_space(activation)
    assert features.tolist() == [[0.5, 2.5], [4.5, 6.5], [8.5, 10.5], [12.5, 14.5]]
    assert average_over_time(features, num_samples=2).tolist() == [[4.5, 6.5], [8.5, 10.5]]
    assert torch.equal(average_over_time(features, num_samples=4), features)


def test_bfloat16_is_summed_in_float32():
    ones = torch.ones(1, 1, 100, 100, dtype=torch.bfloat16)
    assert average_over_space(ones).dtype == torch.float32
    assert average_over_space(ones).item() == 1


def test_the_head_is_linear():
    head = linear_head(3, 5)
    assert (head.in_features, head.out_features) == (3, 5)
