import copy

from torch import nn

from shortback.shortcuts.heads import Heads, linear_head


def test_the_head_is_linear():
    head = linear_head(3, 5)
    assert (head.in_features, head.out_features) == (3, 5)


def test_heads_are_shown_by_their_places_and_are_a_list():
    heads = Heads([linear_head(3, 5), nn.Sequential(nn.Linear(2, 5))], ["layer1.0", "layer2"])
    lines = repr(copy.deepcopy(heads)).splitlines()
    assert lines[:3] == [
        "Heads(",
        "  layer1.0: Linear(in_features=3, out_features=5, bias=True)",
        "  layer2: Sequential(",
    ]
    assert list(heads.state_dict())[:2] == ["0.weight", "0.bias"]
    assert "(0): Linear" in repr(heads[:1])
