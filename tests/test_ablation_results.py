import json

import pytest

from shortback.ablation_results import Run, group_runs, read_run, to_dict


def run(method, seed, accuracy, *, setting="", curve=(0.1, 0.2, 0.3, 0.4), error=None):
    rows = [
        {"kind": "epoch", "step": 10 * (i + 1), "seconds": float(i + 1), "val_accuracy": value, "loss": 1.0}
        for i, value in enumerate(curve)
    ]
    summary = None if accuracy is None else {"test_accuracy": accuracy}
    return Run(setting, method, seed, f"{method}-{seed}", summary, error, rows)


def two_methods():
    """Two seeds of each, 2 and 4 points apart."""
    accuracies = {"vanilla": (0.50, 0.60), "shortcut": (0.52, 0.64)}
    return [run(method, seed, one) for method, both in accuracies.items() for seed, one in enumerate(both)]


def test_groups_are_compared_over_their_seeds():
    vanilla, shortcut = group_runs([*two_methods(), run("shortcut", 2, None, error="ValueError: no")])
    assert vanilla.difference is None
    assert vanilla.accuracy.mean == pytest.approx(0.55)
    assert shortcut.difference.estimate.mean == pytest.approx(0.03)
    assert shortcut.difference.estimate.num_values == 2
    assert [one.status for one in shortcut.runs] == ["finished", "finished", "failed"]


def test_time_to_accuracy():
    """Vanilla ends at 0.4: thresholds 0.2, 0.3, 0.36 and 0.4."""
    fast = run("shortcut", 0, 0.5, curve=(0.2, 0.35, 0.39, 0.39))
    _, shortcut = group_runs([run("vanilla", 0, 0.5), fast])
    times = shortcut.times
    assert [time.threshold for time in times] == pytest.approx([0.2, 0.3, 0.36, 0.4])
    assert [time.steps for time in times] == [10, 20, 30, None]
    assert [time.seconds for time in times] == [1.0, 2.0, 3.0, None]
    assert [time.steps_ratio for time in times] == [0.5, 2 / 3, 0.75, None]
    assert [time.seconds_ratio for time in times] == [0.5, 2 / 3, 0.75, None]
    assert [time.reached for time in times] == [1, 1, 1, 0]


def test_time_to_an_accuracy_that_was_asked_for():
    """Only one seed of vanilla gets to 0.5, so there is no ratio; no run gets to 0.9."""
    curves = {("vanilla", 0): (0.1, 0.5), ("vanilla", 1): (0.1, 0.2), ("shortcut", 0): (0.5,), ("shortcut", 1): (0.6,)}
    runs = [run(*names, 0.5, curve=curve) for names, curve in curves.items()]
    vanilla, shortcut = group_runs(runs, thresholds=[0.5, 0.9])
    assert [(time.reached, time.steps) for time in vanilla.times] == [(1, None), (0, None)]
    assert [(time.reached, time.steps) for time in shortcut.times] == [(2, 10), (0, None)]
    assert shortcut.times[0].steps_ratio is None
    with pytest.raises(ValueError, match=r"--threshold 60: an accuracy is above 0"):
        group_runs(runs, thresholds=[60])


def test_vanilla_without_the_axes_of_branches_is_the_baseline_of_all():
    runs = [
        run("vanilla", 0, 0.5, setting="model.num_steps=2"),
        run("vanilla", 0, 0.1, setting="model.num_steps=4"),
        run("shortcut", 0, 0.6, setting="branches.at=[a, b], model.num_steps=2"),
        run("shortcut", 0, 0.6, setting="branches.at=stages, model.num_steps=4"),
    ]
    differences = [group.difference.estimate.mean for group in group_runs(runs) if group.difference]
    assert differences == pytest.approx([0.1, 0.5])


def test_plain_values_say_why_there_is_no_interval():
    content = json.loads(json.dumps(to_dict(group_runs([run("vanilla", 0, 0.5)])), allow_nan=False))
    (group,) = content["groups"]
    assert "two seeds" in group["note"]
    assert group["accuracy"]["interval"] is None
    assert len(group["runs"][0]["epochs"]) == 4


def test_folders_are_read_whatever_is_in_them(tmp_path):
    folder = tmp_path / "vanilla-seed0"
    assert read_run("", "vanilla", 0, folder, within=tmp_path).status == "not begun"
    folder.mkdir()
    (folder / "error.txt").write_text("ValueError: no\n")
    failed = read_run("", "vanilla", 0, folder, within=tmp_path)
    assert (failed.status, failed.error, failed.folder) == ("failed", "ValueError: no", "vanilla-seed0")
    (folder / "error.txt").unlink()
    (folder / "metrics.jsonl").write_text('{"kind": "step", "step": 1}\n{"kind": "st')
    assert read_run("", "vanilla", 0, folder, within=tmp_path).status == "unfinished"
    (folder / "summary.json").write_text('{"test_accuracy": 0.5}')
    assert read_run("", "vanilla", 0, folder, within=tmp_path).status == "finished"
