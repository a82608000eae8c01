from shortback.words import quantity


def test_one_is_one():
    assert [quantity(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [quantity(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
