from shortback.words import counted


def test_one_is_one():
    assert [counted(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
