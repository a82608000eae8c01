"""Runs of several ablations: told apart by what differs in their recipes, compared with the vanilla runs they share."""

import json

import pytest

from shortback.ablation.grid import Axis, build_grid
from shortback.ablation.groups import group_runs
from shortback.ablation.join import check_comparable, join
from shortback.errors import UserError
from shortback.recipes.build import resolve
from shortback.recipes.load import load_recipe
from shortback.runs.folder import RunFolder


def make_run(path, accuracy, *settings):
    folder = RunFolder(path)
    recipe, _ = resolve(load_recipe("quickstart", settings=["compare=null", *settings]))
    folder.start(recipe, overwrite=False)
    folder.write_summary({"test_accuracy": accuracy})
    return path


def make_ablation(path, cells):
    known = {}
    for (method, seed), (accuracy, *settings) in cells.items():
        name = f"{method}-seed{seed}"
        make_run(path / name, accuracy, f"method={method}", f"seed={seed}", *settings)
        known[name] = {"settings": {}, "method": method, "seed": seed}
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
    runs = join([make_run(tmp_path / "a" / "run", 0.1), make_run(tmp_path / "b" / "run", 0.2)])
    assert [run.setting for run in runs] == ["folder=a", "folder=b"]


def test_ablations_with_a_vanilla_each_are_compared_within(tmp_path):
    """Both called the same, too."""
    first = make_ablation(tmp_path / "x" / "r20", {("vanilla", 0): (0.3,), ("shortcut", 0): (0.5,)})
    second = make_ablation(tmp_path / "y" / "r20", {("vanilla", 0): (0.1,), ("evolutionary", 0): (0.5,)})
    groups = group_runs(join([first, second]))
    assert [group.setting for group in groups] == ["folder=x/r20"] * 2 + ["folder=y/r20"] * 2
    differences = [group.difference.estimate.mean for group in groups if group.difference]
    assert differences == pytest.approx([0.2, 0.4])


def test_what_no_weight_depends_on_is_no_setting(tmp_path):
    first = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,)})
    second = make_ablation(tmp_path / "b", {("shortcut", 0): (0.5, "train.log_every=7", "health.every=null")})
    assert [group.setting for group in group_runs(join([first, second]))] == ["", ""]


def test_a_cell_that_failed_before_it_began_is_shown(tmp_path):
    first = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,)})
    second = make_ablation(tmp_path / "b", {("shortcut", 0): (0.5,)})
    (second / "shortcut-seed0" / "recipe.yaml").unlink()
    (second / "shortcut-seed0" / "summary.json").unlink()
    (second / "shortcut-seed0" / "error.txt").write_text("ValueError: no\n")
    assert [run.status for run in join([first, second])] == ["finished", "failed"]


@pytest.mark.parametrize(
    ("settings", "vary", "message"),
    [
        (["train.epochs=9"], [], r"another recipe .*\n  train.epochs: 9, 3"),
        ([], ["optimizer.lr=0.1,0.2"], "varies nothing, and this one optimizer.lr"),
        ([], ["branches.weights=sum,mean"], None),
        (["branches.start=0.5"], [], None),
    ],
)
def test_what_cannot_be_compared_with_what_is_in_a_folder_is_refused(tmp_path, settings, vary, message):
    out = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,)})
    axes = [Axis.parse(text) for text in vary]
    cells = build_grid("quickstart", settings=settings, methods=["evolutionary"], seeds=1, axes=axes)
    if message is None:
        check_comparable(cells, out)
        return
    with pytest.raises(ValueError, match=message):
        check_comparable(cells, out)


def test_a_cell_that_has_not_begun_hides_none_that_has(tmp_path):
    out = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,), ("vanilla", 1): (0.3,)})
    for file in ("recipe.yaml", "summary.json"):
        (out / "vanilla-seed1" / file).unlink()
    axes = [Axis.parse("optimizer.lr=0.1,0.2")]
    cells = build_grid("quickstart", settings=[], methods=["vanilla"], seeds=2, axes=axes)
    with pytest.raises(ValueError, match=r"varies nothing, and this one optimizer\.lr"):
        check_comparable(cells, out)
    (out / "vanilla-seed0" / ".lock").touch()
    (out / "vanilla-seed0" / "summary.json").unlink()  # of which the recipe was refused before its first step
    check_comparable(cells, out)


@pytest.mark.parametrize(
    ("vary", "methods", "more", "more_methods"),
    [
        # A cell of cross entropy goes without the weight that the ablation varies.
        (["loss.kind=tet,cross_entropy", "loss.tet_weight=0.1"], ["vanilla"], None, ["evolutionary"]),
        (["branches.start=0.5,1"], ["shortcut"], ["branches.start=0.25"], ["shortcut"]),
        (["branches.combine=logits,additive"], ["shortcut"], ["branches.combine=convex"], ["evolutionary", "shortcut"]),
    ],
)
def test_more_values_of_what_is_varied_go_beside_the_others(tmp_path, vary, methods, more, more_methods):
    cells = build_grid("quickstart", settings=[], methods=methods, seeds=1, axes=[Axis.parse(text) for text in vary])
    known = {}
    for cell in cells:
        folder = RunFolder(tmp_path / cell.folder)
        folder.start(resolve(cell.recipe)[0], overwrite=False)
        folder.write_summary({"test_accuracy": 0.5})
        known[str(cell.folder)] = {"settings": dict(cell.settings), "method": cell.method, "seed": cell.seed}
    (tmp_path / "cells.json").write_text(json.dumps(known))
    axes = [Axis.parse(text) for text in more or vary]
    beside = build_grid("quickstart", settings=[], methods=more_methods, seeds=1, axes=axes)
    check_comparable(beside, tmp_path)
    others = build_grid("quickstart", settings=["train.epochs=9"], methods=more_methods, seeds=1, axes=axes)
    with pytest.raises(ValueError, match=r"another recipe .*\n  train.epochs: 9, 3"):
        check_comparable(others, tmp_path)


def test_a_folder_given_twice_counts_once(tmp_path):
    ablation = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,), ("shortcut", 0): (0.5,)})
    assert len(join([ablation, ablation / "shortcut-seed0"])) == 2
    with pytest.raises(ValueError, match="holds no run"):
        join([tmp_path])


def test_frames_that_go_without_saying_are_told_apart_from_others(tmp_path):
    """A recipe without `data.frames` has the usual 48 pixels, which are not the 34 of another."""
    for name, size, frames in (("a", 34, "data.frames.size=34"), ("b", 48, "data.frames.size=48")):
        events = ("data={kind: nmnist, augment: {flip: false}}",)
        first = make_ablation(tmp_path / name / "x", {("vanilla", 0): (0.5, *events)})
        second = make_ablation(tmp_path / name / "y", {("evolutionary", 0): (0.8, *events, frames)})
        groups = group_runs(join([first, second]))
        if size == 48:
            assert [group.setting for group in groups] == ["", ""]
        else:
            assert [group.setting for group in groups] == ["data.frames.size=48", "data.frames.size=34"]
            assert groups[1].difference is None


def test_the_measurements_that_an_adaptive_coefficient_follows_are_a_setting(tmp_path):
    """Of evolutionary training alone: vanilla training and a constant coefficient do not follow them."""
    adaptive = "branches.schedule=adaptive"
    one, other = ((adaptive, f"health.every={every}") for every in (2, 3))
    first = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3, *one), ("evolutionary", 7): (0.5, *one)})
    second = make_ablation(tmp_path / "b", {("evolutionary", 1): (0.6, *other), ("shortcut", 0): (0.4, other[1])})
    settings = {(group.method, group.setting) for group in group_runs(join([first, second]))}
    assert settings == {
        ("vanilla", ""),
        ("shortcut", ""),
        ("evolutionary", "health.every=2"),
        ("evolutionary", "health.every=3"),
    }
    cells = build_grid("quickstart", settings=["compare=null", *other], methods=["evolutionary"], seeds=1, axes=[])
    with pytest.raises(ValueError, match=r"another recipe .*\n  health.every: 3, 2"):
        check_comparable(cells, first)
    check_comparable(
        build_grid("quickstart", settings=["compare=null", other[1]], methods=["shortcut"], seeds=2, axes=[]), first
    )


def test_a_damaged_file_of_an_ablation_is_named(tmp_path):
    out = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,)})
    (out / "cells.json").write_text("{")
    with pytest.raises(UserError, match=r"a/cells\.json is damaged .*: restore it, or delete it"):
        join([out])


def test_runs_on_other_classes_are_not_compared(tmp_path):
    folders = []
    for name, classes in (("a", ["cat", "dog"]), ("b", ["bus", "car"])):
        folders.append(make_ablation(tmp_path / name, {("vanilla", 0): (0.3,)}))
        folder = RunFolder(tmp_path / name / "vanilla-seed0")
        folder.write_summary({**folder.read_summary(), "classes": classes})
    with pytest.raises(UserError, match=r"different classes \(cat, dog \.\.\. and bus, car \.\.\.\)"):
        join(folders)


def test_cells_without_a_seed_are_damage(tmp_path):
    out = make_ablation(tmp_path / "a", {("vanilla", 0): (0.3,)})
    for content in ({"a": 1}, {"a": {"settings": {}, "method": "vanilla"}}):
        (out / "cells.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="lack settings, method or seed"):
            join([out])
