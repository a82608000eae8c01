import pytest

from shortback.ablation.time_to_accuracy import check_thresholds, times_to_accuracy
from tests.ablation.test_groups import run


def test_parts_of_what_vanilla_ends_at():
    """Vanilla ends at 0.4: 0.2, 0.3, 0.36 and 0.4."""
    vanilla = [run("vanilla", 0, 0.5)]
    times = times_to_accuracy([run("shortcut", 0, 0.5, curve=(0.2, 0.35, 0.39, 0.39))], vanilla, [])
    assert [time.goal for time in times] == [f"{part}% of vanilla's last" for part in (50, 75, 90, 100)]
    assert [time.threshold for time in times] == pytest.approx([0.2, 0.3, 0.36, 0.4])
    assert [time.steps for time in times] == [10, 20, 30, None]
    assert [time.seconds for time in times] == [1.0, 2.0, 3.0, None]
    assert [time.steps_ratio for time in times] == [0.5, 2 / 3, 0.75, None]
    assert [time.seconds_ratio for time in times] == [0.5, 2 / 3, 0.75, None]
    assert [time.reached for time in times] == [1, 1, 1, 0]
    assert times_to_accuracy(vanilla, vanilla, [])[-1].steps_ratio == 1


def test_each_seed_is_held_against_its_own_vanilla():
    """Vanilla ends at 0.2 and 0.4; both ours need half of its steps, though one never gets to the mean of 0.3."""
    vanilla = [run("vanilla", 0, 0.5, curve=(0.1, 0.2)), run("vanilla", 1, 0.5, curve=(0.1, 0.2, 0.3, 0.4))]
    ours = [run("shortcut", 0, 0.5, curve=(0.2, 0.2)), run("shortcut", 1, 0.5, curve=(0.1, 0.4))]
    last = times_to_accuracy(ours, vanilla, [])[-1]
    assert (last.threshold, last.reached, last.num_runs) == (pytest.approx(0.3), 2, 2)
    assert last.steps_ratio_by_seed == {0: 0.5, 1: 0.5}
    assert last.steps_ratio == 0.5
    slower = [ours[0], run("shortcut", 1, 0.5, curve=(0.1, 0.1))]
    last = times_to_accuracy(slower, vanilla, [])[-1]
    assert (last.steps_ratio_by_seed, last.steps_ratio) == ({0: 0.5, 1: None}, None)


def test_an_accuracy_that_was_asked_for():
    """Only one seed of vanilla gets to 0.5, so there is no ratio; no run gets to 0.9."""
    vanilla = [run("vanilla", 0, 0.5, curve=(0.1, 0.5)), run("vanilla", 1, 0.5, curve=(0.1, 0.2))]
    ours = [run("shortcut", 0, 0.5, curve=(0.5,)), run("shortcut", 1, 0.5, curve=(0.6,))]
    assert [(time.reached, time.steps) for time in times_to_accuracy(vanilla, vanilla, [0.5, 0.9])] == [
        (1, None),
        (0, None),
    ]
    first, second = times_to_accuracy(ours, vanilla, [0.5, 0.9])
    assert (first.goal, first.reached, first.steps, first.steps_ratio) == ("50.0%", 2, 10, None)
    assert (second.reached, second.steps) == (0, None)


def test_runs_that_are_not_finished_or_have_no_vanilla_do_not_count():
    unfinished = run("shortcut", 0, None)
    for thresholds in ([], [0.2]):
        assert times_to_accuracy([unfinished], [run("vanilla", 0, 0.5)], thresholds) == []
    assert times_to_accuracy([run("shortcut", 0, 0.5)], [run("vanilla", 1, 0.5)], []) == []


@pytest.mark.parametrize("threshold", [0, -0.1, 60, float("nan")])
def test_what_is_no_accuracy_is_refused(threshold):
    with pytest.raises(ValueError, match="an accuracy is above 0 and at most 1"):
        check_thresholds([0.5, threshold])
