"""The command that reproduces table 1 of the paper: its grid, its settings and its table."""

import importlib.util
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from shortback.ablation.command import Ablation

spec = importlib.util.spec_from_file_location("table1", Path(__file__).parent.parent / "scripts" / "table1.py")
table1 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table1)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command makes of its arguments, without running it."""
    seen = []
    monkeypatch.setattr(Ablation, "print_plan", lambda self, *, jobs: seen.append((self, jobs)))

    def ask(*words):
        monkeypatch.setattr(sys, "argv", ["table1.py", "--plan", "--out", str(tmp_path), *words])
        table1.main()
        return seen

    return ask


def test_it_is_the_grid_of_the_table(asked):
    ablations = asked("--jobs", "4", "--root", "cifar")
    assert [jobs for _, jobs in ablations] == [4, 4]
    cells = [cell for ablation, _ in ablations for cell in ablation.cells]
    assert len(cells) == 36
    kinds = {(c.recipe.model.name, str(c.recipe.model.num_steps), c.method) for c in cells}
    assert kinds == {(*key, method) for key in table1.PAPER for method in ("vanilla", "shortcut", "evolutionary")}
    assert {c.seed for c in cells} == {0, 1, 2}
    for recipe in (cell.recipe for cell in cells):
        assert (recipe.data.kind, str(recipe.data.root), recipe.data.download) == ("cifar100", "cifar", False)
        assert (recipe.branches.combine, recipe.train.epochs, recipe.model.width) == ("logits", 300, None)


def test_what_was_found_stands_beside_the_paper():
    results = {"resnet18": {("2", "vanilla"): [70.0, 71.0, 72.0], ("4", "shortcut"): [74.5]}}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table1.beside_the_paper(results))
    text = console.export_text()
    assert "71.42 / 71.00 ± 1.00 (3)" in text
    assert "74.78 / 74.50 (1)" in text
    assert "- / -" in text


@pytest.mark.parametrize("failed", [(), ("resnet34",)])
def test_runs_that_failed_are_told_by_the_exit_code_after_the_table(monkeypatch, tmp_path, failed):
    done = []
    monkeypatch.setattr(Ablation, "run", lambda self, *, jobs: done.append(self) or self.out.name in failed)
    monkeypatch.setattr(table1, "report_folders", lambda folders, out: done.append(folders))
    monkeypatch.setattr(table1, "found", lambda folder: {})
    monkeypatch.setattr(sys, "argv", ["table1.py", "--out", str(tmp_path)])
    if failed:
        with pytest.raises(SystemExit, match="1"):
            table1.main()
    else:
        table1.main()
    assert len(done) == 3  # two ablations and the page
