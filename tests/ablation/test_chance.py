from dataclasses import replace

from shortback.ablation.chance import all_at_chance
from tests.ablation.test_groups import run


def one(seed, accuracy, **summary):
    made = run("vanilla", seed, accuracy)
    return replace(made, summary={**made.summary, "test_images": 900, **summary})


def test_three_standard_errors_are_chance():
    """Of 900 images in 10 classes 1 point is one: sqrt(0.1 * 0.9 / 900) = 0.01."""
    classes = {"classes": list("0123456789")}
    said = "Every run is at chance, 10.0% with 10 classes: the comparison says nothing."
    runs = [one(0, 0.129, **classes), one(1, 0.05, num_classes=10)]
    assert all_at_chance(runs) == said
    assert all_at_chance([*runs, run("vanilla", 2, None, error="no")]) == said
    assert all_at_chance([*runs, one(2, 0.131, **classes)]) is None


def test_nothing_is_said_where_it_is_not_known():
    assert all_at_chance([]) is None
    assert all_at_chance([run("vanilla", 0, None, error="no")]) is None
    assert all_at_chance([one(0, 0.1)]) is None  # of how many classes
    assert all_at_chance([run("vanilla", 0, 0.1)]) is None
