from shortback.shortcuts.heads import linear_head


def test_the_head_is_linear():
    head = linear_head(3, 5)
    assert (head.in_features, head.out_features) == (3, 5)
