import json

import pytest

from shortback.ablation.groups import group_runs, to_dict
from shortback.ablation.run import CellRun


def run(method, seed, accuracy, *, settings=(), curve=(0.1, 0.2, 0.3, 0.4), error=None):
    """A run whose best validation accuracy is that of its curve."""
    rows = [
        {"kind": "epoch", "step": 10 * (i + 1), "seconds": float(i + 1), "val_accuracy": value, "loss": 1.0}
        for i, value in enumerate(curve)
    ]
    summary = None if accuracy is None else {"test_accuracy": accuracy, "best_val_accuracy": max(curve)}
    return CellRun(tuple(dict(settings).items()), method, seed, f"{method}-{seed}", summary, error, rows, None)


def two_methods():
    """Two seeds of each, 2 and 4 points apart."""
    accuracies = {"vanilla": (0.50, 0.60), "shortcut": (0.52, 0.64)}
    return [run(method, seed, one) for method, both in accuracies.items() for seed, one in enumerate(both)]


def three_seeds(method, *, validation, test):
    """Shifts of both, in points; seeds differ a little, or there would be no interval."""
    return [
        run(method, seed, 0.5 + test / 100 + 1e-3 * seed * test, curve=(0.4 + validation / 100,)) for seed in range(3)
    ]


def test_groups_are_compared_over_their_seeds():
    vanilla, shortcut = group_runs([*two_methods(), run("shortcut", 2, None, error="ValueError: no")])
    assert vanilla.difference is None
    assert vanilla.accuracy.mean == pytest.approx(0.55)
    assert shortcut.difference.estimate.mean == pytest.approx(0.03)
    assert shortcut.difference.estimate.num_values == 2
    assert [one.status for one in shortcut.runs] == ["finished", "finished", "failed"]


def test_the_validation_split_has_means_and_differences_too():
    curves = {("vanilla", 0): (0.1, 0.3), ("vanilla", 1): (0.5,), ("shortcut", 0): (0.4, 0.2), ("shortcut", 1): (0.7,)}
    vanilla, shortcut = group_runs([run(*names, 0.5, curve=curve) for names, curve in curves.items()])
    assert vanilla.validation.mean == pytest.approx(0.4)
    assert vanilla.validation_difference is None
    assert shortcut.validation_difference.estimate.mean == pytest.approx(0.15)
    assert shortcut.difference.estimate.mean == 0


def test_vanilla_without_the_axes_of_branches_is_the_baseline_of_all():
    two, four = {"model.num_steps": "2"}, {"model.num_steps": "4"}
    runs = [
        run("vanilla", 0, 0.5, settings=two),
        run("vanilla", 0, 0.1, settings=four),
        run("shortcut", 0, 0.6, settings={"branches.at": "[a, b]", **two}),
        run("shortcut", 0, 0.6, settings={"branches.at": "stages", **four}),
    ]
    differences = [group.difference.estimate.mean for group in group_runs(runs) if group.difference]
    assert differences == pytest.approx([0.1, 0.5])


def test_a_value_with_commas_is_one_value():
    more, less = {"model.neuron": "{decay: 0.5, kind: lif}"}, {"model.neuron": "{decay: 0.5}"}
    runs = [run("vanilla", 0, 0.5, settings=more), run("vanilla", 0, 0.1, settings=less)]
    runs += [run("shortcut", 0, 0.6, settings=more), run("shortcut", 0, 0.6, settings=less)]
    differences = [group.difference.estimate.mean for group in group_runs(runs) if group.difference]
    assert differences == pytest.approx([0.1, 0.5])


def test_plain_values_say_why_there_is_no_interval():
    content = json.loads(json.dumps(to_dict(group_runs([run("vanilla", 0, 0.5)])), allow_nan=False))
    (group,) = content["groups"]
    assert "two seeds" in group["note"]
    assert group["accuracy"]["interval"] is None
    assert len(group["runs"][0]["epochs"]) == 4
    assert group["settings"] == {}


def test_values_that_are_all_the_same_are_not_told_to_need_more_seeds():
    (group,) = to_dict(group_runs([run("vanilla", 0, 0.5), run("vanilla", 1, 0.5)]))["groups"]
    assert group["accuracy"]["interval"] is None
    assert "note" not in group


def test_a_threshold_passes_by_a_method_without_finished_runs():
    runs = [run("vanilla", 0, 0.5), run("shortcut", 0, None, error="no")]
    assert [len(group.times) for group in group_runs(runs, thresholds=[0.2])] == [1, 0]
