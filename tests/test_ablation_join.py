"""Runs of several ablations: told apart by what differs in their recipes, compared with the vanilla runs they share."""

import json

import pytest

from shortback.ablation_join import join
from shortback.ablation_results import group_runs
from shortback.config import load_recipe
from shortback.runs import RunFolder


def make_run(path, accuracy, *settings):
    folder = RunFolder(path)
    folder.start(load_recipe("quickstart", settings=["compare=null", *settings]), overwrite=False)
    folder.write_summary({"test_accuracy": accuracy})
    return path


def make_ablation(path, cells):
    known = {}
    for (method, seed), (accuracy, *settings) in cells.items():
        name = f"{method}-seed{seed}"
        make_run(path / name, accuracy, f"method={method}", f"seed={seed}", *settings)
        known[name] = {"setting": "", "method": method, "seed": seed}
    (path / "cells.json").write_text(json.dumps(known))
    return path


def test_settings_that_differ_are_named_and_vanilla_is_shared(tmp_path):
    first = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,), ("vanilla", 1): (0.4,), ("shortcut", 0): (0.5,)})
    mean = "branches.weights=mean"
    second = make_ablation(tmp_path / "b", {("evolutionary", 0): (0.35, mean), ("evolutionary", 1): (0.55, mean)})
    groups = {group.method: group for group in group_runs(join([first, second]))}
    assert {method: group.setting for method, group in groups.items()} == {
        "vanilla": "",
        "shortcut": "",
        "evolutionary": "branches.weights=mean",
    }
    assert groups["evolutionary"].difference.estimate.mean == pytest.approx(0.1)
    assert groups["shortcut"].difference.estimate.num_values == 1


def test_another_network_is_compared_with_its_own_vanilla(tmp_path):
    four = "model.num_steps=4"
    first = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,), ("shortcut", 0): (0.5,)})
    second = make_ablation(tmp_path / "b", {("vanilla", 0): (0.1, four), ("shortcut", 0): (0.6, four)})
    groups = group_runs(join([first, second]))
    differences = {g.setting: g.difference.estimate.mean for g in groups if g.difference}
    assert differences == {"model.num_steps=2": pytest.approx(0.2), "model.num_steps=4": pytest.approx(0.5)}


def test_two_of_one_seed_keep_the_names_of_their_folders(tmp_path):
    runs = join([make_run(tmp_path / "one", 0.1), make_run(tmp_path / "two", 0.2)])
    assert [run.setting for run in runs] == ["folder=one", "folder=two"]
    assert [run.folder for run in runs] == ["one", "two"]


def test_a_folder_given_twice_counts_once(tmp_path):
    ablation = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,), ("shortcut", 0): (0.5,)})
    assert len(join([ablation, ablation / "shortcut-seed0"])) == 2
    with pytest.raises(ValueError, match="holds no run"):
        join([tmp_path])
