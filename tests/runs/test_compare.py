import pytest
from rich.table import Table

from shortback.recipes.load import load_recipe
from shortback.runs import compare as comparison
from shortback.runs.folder import RunFolder


@pytest.mark.parametrize(("rank", "times"), [("0", 1), ("1", 0)])
def test_one_of_several_processes_prints_the_table(tmp_path, monkeypatch, capsys, rank, times):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(comparison, "check", lambda *arguments, **settings: None)
    monkeypatch.setattr(comparison, "train_recipe", lambda *arguments, **settings: {})
    monkeypatch.setattr(comparison, "comparison_table", lambda summaries, out: Table("the table", *summaries))
    recipe = load_recipe("quickstart", settings=["compare=[vanilla, evolutionary]"])
    settings = {"resume": False, "overwrite": False, "say": lambda line: None}
    assert list(comparison.compare(recipe, tmp_path, **settings)) == ["vanilla", "evolutionary"]
    assert capsys.readouterr().out.count("the table") == times


def test_what_is_printed_meanwhile_has_the_name_of_the_variant(tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(comparison, "check", lambda *arguments, **settings: None)
    monkeypatch.setattr(comparison, "train_recipe", lambda *arguments, name, **settings: named.append(name))
    monkeypatch.setattr(comparison, "comparison_table", lambda summaries, out: Table())
    recipe = load_recipe("quickstart")
    comparison.compare(recipe, tmp_path, resume=False, overwrite=False, say=lambda line: None)
    assert named == ["vanilla", "evolutionary-logits", "evolutionary"]


def test_a_comparison_and_a_run_do_not_share_a_folder(tmp_path):
    recipe = load_recipe("quickstart", settings=["compare=[vanilla, shortcut]"])
    single = load_recipe("quickstart", settings=["compare=", "method=vanilla"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(single.to_yaml())
    with pytest.raises(ValueError, match="run holds a single run, not a comparison; name another folder"):
        comparison.compare(recipe, tmp_path / "run", resume=True, overwrite=False, say=lambda line: None)
    for method in ("vanilla", "shortcut"):
        (tmp_path / "both" / method).mkdir(parents=True)
        (tmp_path / "both" / method / "recipe.yaml").write_text(single.to_yaml())
    with pytest.raises(ValueError, match=r"holds runs of a comparison \(shortcut, vanilla\); name another folder"):
        RunFolder(tmp_path / "both").check(single, resume=False, overwrite=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method=vanilla"], "the recipe compares vanilla, evolutionary-logits, evolutionary, .* add -s compare="),
        (["branches.start=0.3"], "-s branches.start=...: evolutionary-logits of compare would not follow this"),
        (["branches={combine: logits}"], "-s branches.combine=...: evolutionary-logits of compare"),
    ],
)
def test_settings_that_the_sides_would_not_follow_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        comparison.check_settings(load_recipe("quickstart", settings=settings), settings)


@pytest.mark.parametrize(
    "settings",
    [
        ["train.epochs=1", "branches.at=stages"],
        ["compare=", "method=vanilla", "branches.start=0.3"],
        ["compare=[vanilla, evolutionary]", "branches.start=0.3"],
    ],
)
def test_settings_that_all_sides_follow_are_fine(settings):
    comparison.check_settings(load_recipe("quickstart", settings=settings), settings)
