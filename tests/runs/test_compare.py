import pytest
from rich.table import Table

from shortback.recipes.load import load_recipe
from shortback.runs import compare as comparison


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
